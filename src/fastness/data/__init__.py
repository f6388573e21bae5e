"""What goes in: sources, manifests, the decoded cache, splits."""

from fastness.data.dataset import Dataset, Quarantined
from fastness.data.sources import open_data

__all__ = ["Dataset", "Quarantined", "open_data"]
