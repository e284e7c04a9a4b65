"""Models: families, loading, streaming and offloading."""
