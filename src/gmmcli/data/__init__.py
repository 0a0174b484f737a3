"""Datasets: one source a file, one in-memory form, one loader."""
