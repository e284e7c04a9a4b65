"""Figures: each is built as a `Chart`, then rendered for the page (`svg`) and as files (`files`)."""
