"""The bundled default: small models trained on synthetic data, and miniature benchmarks built from the same data."""
