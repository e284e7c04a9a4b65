"""Export of a checkpoint to a GGUF file for llama.cpp."""
