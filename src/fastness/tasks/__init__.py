"""What people do with embeddings."""
