"""Searches over cuts: layerwise runs, shared prefixes, levels."""
