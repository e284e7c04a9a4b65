"""The arena: a documentation page that compares all methods, generated from runs."""
