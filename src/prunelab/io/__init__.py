"""Files and terminals: reading JSON and YAML within limits, and printing what came from outside.

Nothing here knows models; no module here imports torch or transformers.
"""
