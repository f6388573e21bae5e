"""What is the same: batched, seeded augmentations that run on the device of the data."""

from fastness.views.views import VIEWS, Views, ViewSpec

__all__ = ["VIEWS", "ViewSpec", "Views"]
