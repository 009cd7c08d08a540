"""From two texts or a patch to token ids that line up."""
