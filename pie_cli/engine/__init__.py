"""Token ids and tensors: plans, the KV cache, re-rotation, decoding."""
