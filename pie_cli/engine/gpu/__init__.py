"""The engine on CUDA GPUs: passes captured once and replayed, splices of all layers at once.

A pass of few tokens is bound by launches there, not by memory: some forty kernels a layer, each
started by Python. A CUDA graph starts them all at once. It remembers addresses, so its kernels look
the cache's addresses up in a table: one graph serves every cache of its model.
"""
