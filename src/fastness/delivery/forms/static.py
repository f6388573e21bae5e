"""A text encoder as a table: one vector a token, whatever stands around it, and their mean.

The table begins with what the encoder gives for each token alone, less their mean, and weighted by how rare the token
is (Arora et al. 2017, "A simple but tough-to-beat baseline for sentence embeddings"; Tulkens and van Dongen 2024,
model2vec). Then it is moved as little as makes the mean of a text's tokens what the encoder gives for the text: ridge
regression on your texts, in closed form. Its vectors lie in the encoder's own space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import torch
from scipy import linalg, sparse

from fastness.core.errors import BadInput
from fastness.core.files import write_bytes
from fastness.core.seeds import numpy_generator
from fastness.delivery import rows
from fastness.delivery.forms import FORMS, Form, Source, Written
from fastness.delivery.graph import graph_of
from fastness.delivery.intake import intake_of
from fastness.encoders import Encoder, build

Floats = npt.NDArray[np.float32]
_RARE = 1e-4  # a token as frequent as this weighs half
_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)  # of the ridge, in mean squared norms of a text's shares of tokens
_AT_ONCE = 512


@FORMS.register("static")
class Static(Form):
    """Many times as fast; knows words, not their order."""

    line = "one vector a token, fitted to the encoder on your texts; of texts"
    floor = 0.5
    judged = "order"
    modalities: ClassVar[tuple[str, ...]] = ("text",)
    calibrated = 6000

    def write(self, source: Source, folder: Path) -> Written:
        """Fit the table and write it, in 8 bits."""
        whole = source.bundle.encoder
        inner: Any = getattr(whole, "inner", whole)
        if inner.spec.name == "static":
            raise BadInput("--format static: this encoder is a table already; take onnx or onnx-int8")
        texts = _shares(inner.tokenizer, source.sample.items)
        table, strength = _fitted(_alone(whole, inner.tokenizer), texts, source.sample.vectors)
        made = _encoder(inner.spec, table)
        intake = intake_of(made)
        for name, content in intake.files.items():
            write_bytes(folder / name, content)
        onnx.save(source.with_head(rows.in_eight_bits(graph_of(made, intake))), folder / "encoder.onnx")
        return Written("encoder.onnx", {"texts": len(source.sample), "ridge": strength})


def _encoder(spec: Any, table: Floats) -> Encoder:
    config = {"vocab_size": len(table), "dim": table.shape[1]}  # as wide as what a layer behind the encoder gives
    made = build(replace(spec, name="static", config=config, pooling="mean", projection=0))
    with torch.no_grad():
        made.backbone.get_parameter("net.embedding.weight").copy_(torch.from_numpy(table))
    return made.eval()


def _alone(encoder: Encoder, tokenizer: Any) -> Floats:
    """Return what the encoder gives for each token of the vocabulary, between the marks it puts around a text."""
    framed = tokenizer.encode("a")
    start = [i for i, special in zip(framed.ids, framed.special_tokens_mask, strict=True) if special]
    cut = next((at for at, special in enumerate(framed.special_tokens_mask) if not special), 0)
    found = []
    for ids in np.array_split(np.arange(tokenizer.get_vocab_size()), -(-tokenizer.get_vocab_size() // _AT_ONCE)):
        batch = np.tile(np.array([*start[:cut], 0, *start[cut:]], np.int32), (len(ids), 1))
        batch[:, cut] = ids
        with torch.inference_mode():
            found.append(encoder(encoder.preprocess(torch.from_numpy(batch))).numpy())
    return np.concatenate(found).astype(np.float32)


def _shares(tokenizer: Any, texts: Sequence[str]) -> sparse.csr_matrix:
    """Return each token's share of each text, sparse ``[N, V]``."""
    tokens = [found.ids for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    text = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])
    share = np.concatenate([np.full(len(ids), 1 / max(1, len(ids)), np.float32) for ids in tokens])
    token = np.concatenate([np.array(ids, np.int64) for ids in tokens])
    return sparse.csr_matrix((share, (text, token)), (len(tokens), tokenizer.get_vocab_size()))


def _fitted(alone: Floats, texts: sparse.csr_matrix, wanted: Floats) -> tuple[Floats, float]:
    """Return the table ``[V, D]`` and the strength of the ridge, chosen on the fifth that was not fitted on."""
    unit = alone / np.maximum(np.linalg.norm(alone, axis=1, keepdims=True), 1e-12)
    seen = np.asarray((texts > 0).sum(0)).ravel()
    rare = _RARE / (_RARE + seen / max(1, seen.sum()))
    table = (unit - unit.mean(0)) * rare[:, None].astype(np.float32)
    means = texts @ table
    table *= float((means * wanted).sum() / max(float((means * means).sum()), 1e-12))
    order = numpy_generator(0, "static").permutation(len(wanted))
    kept, rest = order[len(order) // 5 :], order[: len(order) // 5]
    tried = _STRENGTHS if len(rest) else _STRENGTHS[-1:]
    moves = _moves(table, texts[kept], wanted[kept], tried)
    errors = [float(((texts[rest] @ (table + move) - wanted[rest]) ** 2).sum()) for move in moves]
    best = tried[int(np.argmin(errors))]
    (move,) = _moves(table, texts, wanted, [best])
    return (table + move).astype(np.float32), best


def _moves(table: Floats, texts: sparse.csr_matrix, wanted: Floats, strengths: Sequence[float]) -> list[Floats]:
    """Return the smallest changes of the table that leave least of what is missing, a strength each.

    With S the texts' shares and R what is missing, ``S' (S S' + strength I)^-1 R``: as large a system as there are
    texts, whatever the vocabulary.
    """
    missing, common = wanted - texts @ table, (texts @ texts.T).toarray().astype(np.float64)
    mean, diagonal = float(np.diag(common).mean()), np.diag_indices(len(common))
    moves = []
    for strength in strengths:
        ridged = common.copy()
        ridged[diagonal] += strength * mean
        moves.append(np.asarray(texts.T @ linalg.solve(ridged, missing, assume_a="pos"), np.float32))
    return moves
