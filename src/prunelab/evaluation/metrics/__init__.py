"""How a benchmark's per-sample scores become its figures: pure functions, no model and no file."""
