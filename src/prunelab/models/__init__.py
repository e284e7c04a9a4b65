"""A model's folder inspected before anything is computed: files, tensors, tying, number format."""
