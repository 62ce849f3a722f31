"""Training data: examples and where they come from."""
