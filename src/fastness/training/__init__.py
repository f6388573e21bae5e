"""The loop: schedule, budget, checkpoint, collapse watch, progress."""
