"""Checkpoints of other programs become runs; nothing in them is executed."""
