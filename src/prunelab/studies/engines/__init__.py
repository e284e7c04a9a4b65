"""Where the cells of a study run: in this process, or as tasks of a Ray cluster. The code of a cell is the same."""
