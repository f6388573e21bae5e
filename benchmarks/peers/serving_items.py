"""What the two peers of ``fastness serve`` share: an item as it is asked for, and an answer in OpenAI's form."""

import base64

import numpy as np


def item(modality: str, asked: str) -> str | bytes:
    """Return a text as it is, or the bytes in a data URL."""
    return asked if modality == "text" else base64.b64decode(asked.partition(",")[2])


def answer(vector: np.ndarray, model: str) -> dict:
    """Return the answer of one vector, in base64."""
    data = [{"object": "embedding", "index": 0, "embedding": base64.b64encode(vector.tobytes()).decode("ascii")}]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": 0, "total_tokens": 0}}
