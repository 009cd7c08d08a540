"""pie-nano, the embedded default model: its files, and the recipe that makes them."""
