"""Scripts that generate pages of the documentation and train the pocket checkpoints; not part of the package."""
