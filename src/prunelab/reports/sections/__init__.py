"""The report's sections, one per file: each builds a `Section` from a `Study`, or None if it does not apply."""
