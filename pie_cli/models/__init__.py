"""Models: names, loading, and the embedded one."""
