"""What an edit keeps of a cache: numbers only."""
