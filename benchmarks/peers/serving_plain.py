"""A plain FastAPI handler on an export, a call a request, on a thread: ``serving_plain.py MODEL PORT THREADS``."""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from serving_items import answer, item

import fastness_runtime

MODEL, PORT, THREADS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ENCODER = fastness_runtime.load(MODEL, threads=THREADS)
app = FastAPI()


class Asked(BaseModel):
    """What OpenAI's clients send."""

    input: str
    model: str
    encoding_format: str = "base64"


@app.post("/v1/embeddings")
def embeddings(asked: Asked) -> dict:
    """Answer one item."""
    (vector,) = ENCODER.embed([item(ENCODER.about["modality"], asked.input)])
    return answer(vector, asked.model)


uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)
