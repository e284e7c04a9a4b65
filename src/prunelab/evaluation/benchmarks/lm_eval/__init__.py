"""Shared code of the benchmarks that use lm-eval's task definitions with prunelab's scorer and sampler."""
