"""One way to embed files of pictures, in a process of its own: ``image_server.py WAY MODEL FOLDER THREADS``.

Prints ``ready``; then, for each name of a part on stdin, embeds the files in FOLDER/part.bin (lengths in part.json),
writes FOLDER/vectors.npy and prints the seconds that it took.
"""

import io
import json
import sys
import time
from pathlib import Path

import numpy as np

BATCH = 32


def fastness(model: Path, threads: int):
    import fastness_runtime

    encoder = fastness_runtime.load(model, threads=threads)
    return lambda files: encoder.embed(files, batch_size=BATCH)


def torch(model: Path, threads: int):
    """The network of the bundle itself, as one would write it without fastness."""
    import torch as t
    from PIL import Image
    from torchvision import transforms

    from fastness.bundle import load

    t.set_num_threads(threads)
    encoder = load(model).encoder
    network, spec = encoder.backbone.to(memory_format=t.contiguous_format).eval(), encoder.spec
    ready = transforms.Compose(
        [
            transforms.Resize(spec.size),
            transforms.CenterCrop(spec.size),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )

    def embed(files):
        found = []
        for start in range(0, len(files), BATCH):
            opened = [Image.open(io.BytesIO(file)).convert("RGB") for file in files[start : start + BATCH]]
            with t.inference_mode():
                found.append(t.nn.functional.normalize(network(t.stack([ready(picture) for picture in opened])), dim=1))
        return t.cat(found).numpy()

    return embed


def main() -> None:
    """Serve."""
    way, model, folder, threads = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    embed = {"fastness": fastness, "torch": torch}[way](model, threads)

    def files(part: str) -> list[bytes]:
        stream = io.BytesIO((folder / f"{part}.bin").read_bytes())
        return [stream.read(length) for length in json.loads((folder / f"{part}.json").read_text())]

    embed(files("test")[:64])
    print("ready", flush=True)
    for line in sys.stdin:
        given = files(line.strip())
        started = time.perf_counter()
        vectors = embed(given)
        seconds = time.perf_counter() - started
        np.save(folder / "vectors.npy", vectors)
        print(seconds, flush=True)


main()
