"""Analysis of a run: the paper's claims, recommendations, and the paper's tables."""
