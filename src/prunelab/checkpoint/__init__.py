"""Pruned checkpoints: their form, their files and the modelling file that travels with them."""
