"""Figures of one model: tensors in, numbers with their intervals out. No files, no runs."""
