"""Inspection of what a model's folder holds, before anything is computed."""
