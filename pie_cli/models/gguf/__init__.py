"""GGUF, the model format of llama.cpp: read without trust, converted once to safetensors."""
