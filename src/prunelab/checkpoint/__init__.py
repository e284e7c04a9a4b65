"""Pruned checkpoints: architecture, tensor files, model card, license and export to GGUF."""
