"""What is the same: batched, seeded augmentations that run on the device of the data."""
