"""From file events to documents that changed."""
