"""Figures: what each shows is decided first (`Chart`), then drawn for the page (`svg`) and as files (`files`)."""
