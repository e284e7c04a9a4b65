"""The embedded default: a little world, models that were trained on it, and miniature benchmarks that ask about it."""
