"""What is the same: batched, seeded augmentations that run on the device of the data.

`Views` make a list of tensors of a batch, a view each. A view is described by a `ViewSpec`, values that JSON can
hold, so that a recipe may change them by name. The numbers that a view draws are a function of seed, step and the
item's place in the whole batch: parts of a batch, and processes that share one, get the views that the whole would
have had.
"""

from fastness.views.views import VIEWS, Views, ViewSpec

__all__ = ["VIEWS", "ViewSpec", "Views"]
