"""The report's sections, one a file: each makes a `Section` from a `Study`, or None where there is nothing to show."""
