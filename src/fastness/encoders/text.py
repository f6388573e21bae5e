"""Texts: tokens through a transformer, or the mean of static token vectors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.core.options import Option, settle
from fastness.core.recipe import Recipe
from fastness.core.seeds import numpy_generator
from fastness.data import Dataset
from fastness.data.items import Progress
from fastness.data.text import TextItems, damage, dataset_of, texts_of, tokenised
from fastness.encoders.encoder import MODALITIES, Encoder, Files, Modality, Spec
from fastness.encoders.text_pretext import MaskedTokens, RepeatedText
from fastness.encoders.text_spec import NETS, POOLINGS, TextSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LONGEST = 128  # tokens that an encoder trained from scratch looks at, at most
_SINGLE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # signs that are a token each

NETWORK: Mapping[str, Option] = {
    "layers": Option(4, 1, 48, help="of the transformer"),
    "heads": Option(0, 0, 64, help="of attention; 0: one for 64 channels"),
    "vocabulary": Option(8192, 64, 250_000, help="most tokens of the tokenizer"),
    "pooling": Option("mean", choices=tuple(POOLINGS), help="how tokens become one vector"),
    "dropout": Option(0.1, 0, 0.9, help="in training"),
}
"""What ``--network`` may change of a text encoder that starts from nothing."""


class TextEncoder(Encoder):
    """``forward`` takes tokens int32 ``[B, L]`` with -1 behind the end."""

    spec: TextSpec

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """See `TextSpec.load_tokenizer`."""
        return self.spec.load_tokenizer()

    def prepare(self, dataset: Dataset, progress: Progress | None = None) -> TextItems:
        """Turn the texts into tokens, in one pass."""
        return tokenised(dataset, self.tokenizer, progress)

    def asked(self, query: str) -> str:
        """The query is the text itself."""
        reason = damage(query)
        if reason is not None:
            raise BadInput(f"--query: {reason}; give words")
        return query

    def pretext(self, name: str) -> nn.Module:
        """See `Encoder.pretext`."""
        tasks = {"masked": MaskedTokens, "denoise": RepeatedText}
        return tasks[name](self.spec, self.dim) if name in tasks else super().pretext(name)

    def weights(self) -> dict[str, torch.Tensor]:
        """Under the names that transformers gives them."""
        return {name.removeprefix("backbone.net."): tensor for name, tensor in super().weights().items()}

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take what `weights` gave."""
        own = {n if n.startswith("projection.") else f"backbone.net.{n}": tensor for n, tensor in weights.items()}
        super().load_weights(own)

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the description, and the linear layer's weights where sentence-transformers looks for them."""
        if self.projection is None:
            return super().files
        from safetensors.torch import save

        weights = {f"linear.{name}": tensor.detach().cpu() for name, tensor in self.projection.state_dict().items()}
        return {**super().files, f"{self.spec.dense}/model.safetensors": save(weights)}


@MODALITIES.register("text")
class Texts(Modality):
    """Sentences and short documents."""

    unit = "tokens"

    def choose(self, recipe: Recipe, dataset: Dataset, device: torch.device, init: Spec | None) -> dict[str, Any]:
        """Choose a small transformer, and as many tokens as nearly all texts have words."""
        if isinstance(init, TextSpec):
            return {"encoder": init.name, "size": recipe.size or init.size}
        chosen: dict[str, Any] = {}
        if recipe.encoder == "auto":
            chosen["encoder"] = "transformer"
        if recipe.width is None:
            chosen["width"] = 256
        if recipe.size is None:
            chosen["size"] = _size(dataset)
        return chosen

    def training(self, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
        """AdamW, small rates for pretrained transformers (a tenth of these), large ones for single vectors; no head.

        Without a projection head encoders from nothing are better by .05 to .1 of Spearman's correlation on STS-B dev.
        """
        rate = 5e-3 if recipe.encoder == "static" else 5e-4
        return {
            "optimizer": "adamw",
            "rates": {"adamw": rate},
            "batch_size": 128,
            "temperature": 0.05,
            "options": {"projection": 0},
        }

    def fit(self, recipe: Recipe, dataset: Dataset, progress: Progress | None = None) -> TextSpec:
        """Train a tokenizer on the texts."""
        return _spec(recipe, texts_of(dataset))

    def draft(self, recipe: Recipe, dataset: Dataset) -> TextSpec:
        """Return the spec with a tokenizer of a few words."""
        return _spec(recipe, ["a few words"])

    def refit(self, spec: TextSpec, recipe: Recipe) -> TextSpec:
        """The number of tokens may change."""
        return replace(spec, size=recipe.size or spec.size)

    def read(self, values: Mapping[str, Any], files: Files) -> TextSpec:
        """See `Modality.read`."""
        return TextSpec.from_dict(values, files)

    def build(self, spec: TextSpec, module: nn.Module | None = None) -> TextEncoder:
        """Build the network that the configuration describes."""
        return TextEncoder(NETS.get(spec.name)(spec), spec)

    def dataset(self, items: Any) -> Dataset:
        """Texts in a list or array."""
        return dataset_of(items)


def _size(dataset: Dataset) -> int:
    """Return how many tokens the longest one in a hundred texts has, roughly: 1.3 a word, and two at the ends."""
    rows = numpy_generator(0, "size").permutation(len(dataset))[:2000]
    texts = (dataset.payloads.read(int(dataset.rows[row])) for row in rows)
    words = [len(text.split()) + len(_SINGLE.findall(text)) for text in texts]
    usual = 1.3 * float(np.quantile(words, 0.99)) + 2
    return int(np.clip(8 * np.ceil(usual / 8), 16, _LONGEST))


def _spec(recipe: Recipe, texts: list[str]) -> TextSpec:
    from fastness.encoders.tokens import train_tokenizer

    assert recipe.size is not None and recipe.width is not None
    NETS.get(recipe.encoder)  # says what is wrong with the name
    network = settle(f"encoder {recipe.encoder}", NETWORK, recipe.network)
    ends = recipe.encoder == "transformer"
    tokenizer = train_tokenizer(texts, network["vocabulary"], ends)
    words = tokenizer.get_vocab_size()
    if ends:
        config = _transformer(recipe, network, words)
    else:
        config = {"vocab_size": words, "dim": recipe.width, "dropout": network["dropout"]}
    return TextSpec(recipe.encoder, recipe.size, tokenizer.to_str(), config, network["pooling"])


def _transformer(recipe: Recipe, network: dict[str, Any], words: int) -> dict[str, Any]:
    assert recipe.width is not None and recipe.size is not None
    heads = network["heads"] or max(1, recipe.width // 64)
    if recipe.width % heads:
        raise BadInput(f"--width {recipe.width} is no multiple of {heads} heads; change it or --network heads=N")
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": words,
        "hidden_size": recipe.width,
        "num_hidden_layers": network["layers"],
        "num_attention_heads": heads,
        "intermediate_size": 4 * recipe.width,
        "max_position_embeddings": max(recipe.size, _LONGEST),
        "hidden_dropout_prob": network["dropout"],
        "attention_probs_dropout_prob": network["dropout"],
        "pad_token_id": 0,
        "type_vocab_size": 1,
    }
