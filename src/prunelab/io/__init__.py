"""Input and output: files, locks, data sets, hashes, the hub."""
