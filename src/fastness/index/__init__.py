"""What is near: the vector index.

`Index` is kept, in a folder or on PostgreSQL, and grows and shrinks; `VectorIndex` is held in memory for one task.
Cosine similarity in both.
"""

from fastness.index.base import Hit, Index
from fastness.index.vectors import VectorIndex

__all__ = ["Hit", "Index", "VectorIndex"]
