"""What is asked of a model before anything is computed with it."""
