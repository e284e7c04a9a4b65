"""Plans from statistics, and pruned models from plans."""
