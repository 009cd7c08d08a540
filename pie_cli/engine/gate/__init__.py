"""The gate: whether a model's cache may be edited."""
