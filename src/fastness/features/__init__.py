"""Embeddings as features of other models: a versioned table, joined as of a moment, filled when the encoder changes."""
