"""Search over pruning decisions: layerwise runs, shared prefixes, levels."""
