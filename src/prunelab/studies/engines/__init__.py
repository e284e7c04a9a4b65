"""Engines that run the cells of a study: in this process, or as Ray tasks. Both use the same code per cell."""
