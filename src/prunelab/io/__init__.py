"""Input and output: JSON and YAML within limits, paths, atomic writes, data sets and the terminal.

No module here depends on models.
"""
