"""The arena of methods: a page of the documentation, made from runs."""
