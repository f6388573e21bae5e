"""Embeddings as features of other models: a versioned table, joined as of a moment, filled when the encoder changes.

A table holds a vector for each entity, moment and encoder, in Parquet or on PostgreSQL. A join gives each row of a
model's data the newest vector that was known at the row's moment, all of one encoder, so that no training set sees the
future or mixes spaces. When the encoder changes, a backfill embeds what the new one has no vector of.
"""

from fastness.features.table import Encoding, Features, Joined

__all__ = ["Encoding", "Features", "Joined"]
