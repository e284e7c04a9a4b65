"""From statistics to a plan, and from a plan to a pruned model."""
