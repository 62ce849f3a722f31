"""Training losses: pure functions of unit vectors."""
