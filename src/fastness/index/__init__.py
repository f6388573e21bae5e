"""What is near: the vector index.

Cosine similarity, exact up to 50,000 vectors; and hard negatives, which are near and wrong.
"""

from fastness.index.vectors import VectorIndex

__all__ = ["VectorIndex"]
