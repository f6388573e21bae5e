"""What turns items into vectors, each with its declared preprocessing."""

from fastness.encoders.encoder import MODALITIES, Encoder, Modality, Spec, build, modality, read_spec, ready

__all__ = ["MODALITIES", "Encoder", "Modality", "Spec", "build", "modality", "read_spec", "ready"]
