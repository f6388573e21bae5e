"""What compares vectors: small pure functions, one file each."""
