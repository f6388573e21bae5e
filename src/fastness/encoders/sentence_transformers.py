"""Folders that sentence-transformers or transformers saved, read to adopt the models in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastness.core.errors import BadInput
from fastness.encoders.backbones import read_weights
from fastness.encoders.text_spec import POOLINGS, TextSpec

if TYPE_CHECKING:
    import torch


def read_folder(folder: Path) -> tuple[TextSpec, dict[str, torch.Tensor]]:
    """Return the description and the weights of a sentence-transformers or transformers folder.

    Raises:
        BadInput: a file is missing, or the model has a part that this encoder does not have.
    """
    modules = _read(folder / "modules.json", [{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": ""}])
    if any(".." in Path(module["path"]).parts or Path(module["path"]).is_absolute() for module in modules):
        raise BadInput(f"{folder / 'modules.json'}: names a folder outside")
    kinds = {module["type"].rpartition(".")[2]: folder / module["path"] for module in modules}
    strange = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize", "StaticEmbedding"})
    if strange:
        raise BadInput(f"{folder}: has a part '{strange[0]}' that cannot be adopted; known: Transformer, Pooling")
    static = "StaticEmbedding" in kinds
    inner = kinds["StaticEmbedding" if static else "Transformer"]
    tokenizer = inner / "tokenizer.json"
    if not tokenizer.exists():
        raise BadInput(f"{tokenizer}: no such file; save the model with its fast tokenizer first")
    weights = read_weights(_weights(inner))
    if static:
        table = weights.get("embedding.weight", weights.get("embeddings"))
        if table is None:
            raise BadInput(f"{inner}: holds no token vectors ('embedding.weight')")
        config: dict[str, Any] = {"vocab_size": table.shape[0], "dim": table.shape[1], "dropout": 0.0}
        spec = TextSpec("static", 512, tokenizer.read_text("utf-8"), config, "mean", "Normalize" in kinds)
        return spec, {"embedding.weight": table.float()}
    config = _read(inner / "config.json")
    stated = _read(inner / "sentence_bert_config.json", {})
    if stated.get("do_lower_case"):
        raise BadInput(f"{inner}: lowers all letters outside its tokenizer (do_lower_case), which is not supported")
    longest = stated.get("max_seq_length")
    size = int(longest or min(512, config.get("max_position_embeddings", 512)))
    pooling = _pooling(kinds.get("Pooling", inner) / "config.json") if (folder / "modules.json").exists() else "mean"
    return TextSpec("transformer", size, tokenizer.read_text("utf-8"), config, pooling, "Normalize" in kinds), weights


def _pooling(path: Path) -> str:
    stated = _read(path)
    if "pooling_mode" in stated:
        found = [stated["pooling_mode"]]
    else:
        found = [name for name, mode in POOLINGS.items() if stated.get(mode)]
    if len(found) != 1 or found[0] not in POOLINGS:
        raise BadInput(f"{path}: its pooling cannot be adopted; known: {', '.join(POOLINGS)}")
    return str(found[0])


def _weights(folder: Path) -> Path:
    there = [folder / name for name in ("model.safetensors", "pytorch_model.bin") if (folder / name).exists()]
    if not there:
        raise BadInput(f"{folder}: holds no model.safetensors")
    return there[0]


def _read(path: Path, otherwise: Any = None) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if otherwise is not None:
            return otherwise
        raise BadInput(f"{path}: no such file; is this a folder that sentence-transformers saved?") from None
    except ValueError as error:
        raise BadInput(f"{path}: not readable as JSON ({error})") from None
