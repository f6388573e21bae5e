"""One way to embed texts, in a process of its own: ``text_server.py WAY MODEL THREADS``.

Prints ``ready``; then, for each line of two paths on stdin, embeds the JSON list of texts in the first, writes the
second (npy) and prints the seconds that embedding took. Ways of fastness need ``fastness_runtime`` alone, peers their
own environment.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np


def fastness(model: str, threads: int):
    import fastness_runtime

    return fastness_runtime.load(model, threads=threads).embed


def torch_default(model: str, threads: int):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    return SentenceTransformer(model, device="cpu").encode


def onnx_int8(model: str, threads: int):
    """As the documentation of sentence-transformers has it: exported, then quantised for the processor at hand."""
    import onnxruntime
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    given = {"provider": "CPUExecutionProvider", "session_options": options}
    folder = Path(model).parent / "peer-onnx"
    file = f"model_qint8_{_units()}.onnx" if _units() != "avx2" else "model_quint8_avx2.onnx"
    if not (folder / "onnx" / file).exists():
        made = SentenceTransformer(model, device="cpu", backend="onnx", model_kwargs={**given, "export": True})
        made.save_pretrained(str(folder))
        export_dynamic_quantized_onnx_model(made, _units(), str(folder))
    return SentenceTransformer(
        str(folder), device="cpu", backend="onnx", model_kwargs={**given, "file_name": f"onnx/{file}"}
    ).encode


def openvino(model: str, threads: int):
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    folder = Path(model).parent / "peer-openvino"
    if not folder.exists():
        SentenceTransformer(model, device="cpu", backend="openvino").save_pretrained(str(folder))
    return SentenceTransformer(
        str(folder), device="cpu", backend="openvino", model_kwargs={"ov_config": {"INFERENCE_NUM_THREADS": threads}}
    ).encode


def openvino_int8(model: str, threads: int):
    """Static int8 of sentence-transformers; calibrated on captions, since its default is fetched from a hub."""
    from optimum.intel import OVQuantizationConfig
    from sentence_transformers import SentenceTransformer, export_static_quantized_openvino_model

    folder = Path(model).parent / "peer-openvino-int8"
    file = "openvino/openvino_model_qint8_quantized.xml"
    if not (folder / file).exists():
        made = SentenceTransformer(model, device="cpu", backend="openvino")
        made.save_pretrained(str(folder))
        export_static_quantized_openvino_model(
            made,
            OVQuantizationConfig(),
            str(folder),
            dataset_name=str(Path(model).parent / "captions"),
            dataset_config_name="default",
            dataset_split="train",
            column_name="text",
        )
    settings = {"file_name": file, "ov_config": {"INFERENCE_NUM_THREADS": threads}}
    return SentenceTransformer(str(folder), device="cpu", backend="openvino", model_kwargs=settings).encode


def fastembed(model: str, threads: int):
    """fastembed on the ONNX file of the same network; it fetches its own from a hub where it can."""
    from fastembed import TextEmbedding

    folder = Path(model).parent / "peer-onnx"
    if not (folder / "model.onnx").exists():
        (folder / "model.onnx").symlink_to("onnx/model.onnx")
    made = TextEmbedding("sentence-transformers/all-MiniLM-L6-v2", specific_model_path=str(folder), threads=threads)
    return lambda texts: np.stack(list(made.embed(texts)))


def _units() -> str:
    """Return what sentence-transformers calls the best integer units of this processor."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_vnni" if "avx512_vnni" in flags else "avx512" if "avx512f" in flags else "avx2"


WAYS = {way.__name__: way for way in (fastness, torch_default, onnx_int8, openvino, openvino_int8, fastembed)}


def main() -> None:
    """Serve."""
    way, model, threads = sys.argv[1:]
    embed = WAYS[way](model, int(threads))
    embed(["a few words to begin with"] * 64)
    print("ready", flush=True)
    for line in sys.stdin:
        texts, out = line.rstrip("\n").split("\t")
        given = json.loads(Path(texts).read_text())
        started = time.perf_counter()
        vectors = np.asarray(embed(given), np.float32)
        seconds = time.perf_counter() - started
        np.save(out, vectors)
        print(seconds, flush=True)


main()
