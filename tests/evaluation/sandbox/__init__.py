"""Tests of the sandbox, nearly all of them with real processes on this machine."""
