"""What a run says: claims, recommendations, the paper's tables."""
