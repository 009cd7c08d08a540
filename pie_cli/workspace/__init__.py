"""Documents that are being edited, the sessions that follow them, and what happens to them."""
