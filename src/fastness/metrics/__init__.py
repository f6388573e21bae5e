"""What counts: pure functions of arrays."""
