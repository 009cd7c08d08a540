"""Durations on the host's clock, `time.perf_counter`."""


def elapsed_ms(start: float, stop: float) -> float:
    """Return the milliseconds between two `perf_counter` stamps (seconds)."""
    return (stop - start) * 1000.0
