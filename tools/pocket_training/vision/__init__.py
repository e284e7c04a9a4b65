"""Training of the pocket vision-language model."""
