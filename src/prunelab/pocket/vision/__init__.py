"""The little world's pictures: how they are drawn, what is asked about them, and the model that learns to see them."""
