"""What is near: the vector index."""

from fastness.index.vectors import VectorIndex

__all__ = ["VectorIndex"]
