"""Models whose weights stay on disk."""
