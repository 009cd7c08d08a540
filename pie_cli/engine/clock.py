"""Time stamps that wait for the device."""

import time

import torch


def stamp(device: torch.device) -> float:
    """Return `time.perf_counter()` in seconds once all work queued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
