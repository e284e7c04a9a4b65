"""Models that see: images read one by one, prompts, and answers in batches."""
