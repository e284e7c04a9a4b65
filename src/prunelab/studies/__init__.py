"""The grid of models, cuts and benchmarks: configuration, execution and the run's folder."""
