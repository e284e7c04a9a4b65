"""Scripts that make pages of the documentation and the pocket checkpoints; not part of the package."""
