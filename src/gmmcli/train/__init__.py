"""Training: recipe and data to a finished run."""
