"""Synthetic images for the pocket vision-language model: scenes, drawing, questions, and miniature benchmarks."""
