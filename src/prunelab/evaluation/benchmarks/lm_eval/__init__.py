"""lm-eval's task definitions, run by prunelab's own scorer and sampler: what the benchmarks beside this share."""
