"""Training: the loop, its state, its guard and its voice."""
