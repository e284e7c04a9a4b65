"""Benchmarks, metrics, the sandbox, and the runner of a benchmark."""
