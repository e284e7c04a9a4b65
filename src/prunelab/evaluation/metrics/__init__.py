"""Metrics: pure functions from per-sample scores to a benchmark's values, without models or files."""
