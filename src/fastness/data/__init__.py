"""What goes in: sources, manifests, the decoded cache, splits.

A source opens one kind of address and returns a `Dataset`: a manifest (names, SHA-256 of the bytes, labels, splits,
groups, scores, facts), where the raw items are read from, and which rows of it are meant. It is read-only: `select`,
`split`, `divide` return others on the same manifest. Raw items are what people have: encoded pictures, texts, cells;
an encoder makes them ready as `Items`, batches of one tensor each. Damaged items go to the quarantine with their
reason; what was taken for something else is counted in `handled`. Items with the same bytes or of one group never
stand on both sides of a cut.
"""

from fastness.data.dataset import Dataset, Quarantined
from fastness.data.sources import open_data

__all__ = ["Dataset", "Quarantined", "open_data"]
