"""A document's text: edits, patches, cursors."""
