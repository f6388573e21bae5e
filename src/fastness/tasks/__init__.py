"""What people do with embeddings: write them to a file, search by a picture or words, mine hard negatives."""
