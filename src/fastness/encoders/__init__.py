"""What turns items into vectors, each with its declared preprocessing.

A `Modality` chooses an encoder for a data set, fits its preprocessing on the training items, and builds it. A `Spec`
says everything that is needed to build it again but the weights. An `Encoder` prepares items, preprocesses batches
and gives features ``[B, dim]``; in eval mode an item's features do not depend on what else is in the batch. Other
rooms ask the modality and the encoder, never which modality it is.
"""

from fastness.encoders.encoder import MODALITIES, Encoder, Modality, Spec, build, modality, read_spec, ready

__all__ = ["MODALITIES", "Encoder", "Modality", "Spec", "build", "modality", "read_spec", "ready"]
