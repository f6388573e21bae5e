"""Peer: sentence-transformers' default ``encode``. Reads commands from stdin, one turn a line; prints seconds.

Usage: st_encode.py MODEL TEXTS OUT THREADS, where TEXTS is a file with a JSON list and OUT an npy file of the vectors.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

model_path, texts_path, out, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
model = SentenceTransformer(model_path, device="cpu")
texts = json.loads(Path(texts_path).read_text())
model.encode(texts[:64])
print("ready", flush=True)
for _line in sys.stdin:
    started = time.perf_counter()
    vectors = model.encode(texts)
    print(time.perf_counter() - started, flush=True)
    np.save(out, vectors)
