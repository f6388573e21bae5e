"""What drifted and why, as a page with pictures and as text."""
