"""Where images are compared: feature spaces, and the networks behind them."""
