"""What all rooms share: errors, seeds, files, registration, recipes, hardware."""
