"""Tests of the cage, nearly all of them with real processes on this machine."""
