"""Documents of a running pie, and the sessions that follow them."""
