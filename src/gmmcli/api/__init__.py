"""Runs from Python: what the commands do, with the same figures."""
