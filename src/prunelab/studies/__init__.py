"""Studies: grids of models, methods, ratios and benchmarks, with their configuration, execution and run folders."""
