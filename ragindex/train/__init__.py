"""Training: everything that makes or improves an encoder. Nothing outside this package imports it."""
