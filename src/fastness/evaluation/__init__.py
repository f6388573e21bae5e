"""Evidence: one check a file, measurements with protocol and interval, a report rendered from them."""

from fastness.evaluation.evaluate import Report, evaluate
from fastness.evaluation.measurement import Measurement

__all__ = ["Measurement", "Report", "evaluate"]
