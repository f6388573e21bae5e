"""What turns items into vectors, each with its declared preprocessing."""

from fastness.encoders.encoder import Encoder, EncoderSpec, build

__all__ = ["Encoder", "EncoderSpec", "build"]
