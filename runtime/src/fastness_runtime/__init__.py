"""Embeds with what ``fastness export`` wrote: onnxruntime and numpy, no torch.

``load(folder).embed(items)`` gives float32 ``[N, dim]``, rows of length 1.
"""

from fastness_runtime.answers import Answers
from fastness_runtime.encoder import Encoder, load
from fastness_runtime.errors import Unusable

__version__ = "0.1.0"
__all__ = ["Answers", "Encoder", "Unusable", "load"]
