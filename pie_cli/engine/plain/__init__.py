"""Exact prediction on transformers' own cache."""
