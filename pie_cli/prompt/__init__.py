"""From text to the token ids of a prompt."""
