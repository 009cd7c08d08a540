"""Measuring the session: latency on real text, and where it was measured."""
