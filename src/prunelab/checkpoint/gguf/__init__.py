"""Where a pruned checkpoint goes next: a GGUF file for llama.cpp, or a repository on the hub."""
