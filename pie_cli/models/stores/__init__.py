"""Models that are on this disk already: where other tools keep theirs, read and never written."""
