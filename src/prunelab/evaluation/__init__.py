"""Benchmarks, metrics, the sandbox, and the runner of one benchmark."""
