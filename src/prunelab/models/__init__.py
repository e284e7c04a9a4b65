"""Models: families, inspection of checkpoints, loading, streaming and offloading."""
