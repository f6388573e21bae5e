"""What describes a text encoder, and the files that keep it: a folder that sentence-transformers loads too."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from fastness.core.registry import Registry
from fastness.encoders.encoder import Files, Spec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
"""How tokens become one vector, and what sentence-transformers calls it."""

NETS: Registry[Callable[[TextSpec], nn.Module]] = Registry(
    "encoder", "fastness.encoders", {"transformer": "text_nets", "static": "text_nets"}
)

_TOKENIZER, _CONFIG = "tokenizer.json", "config.json"
_TYPE = "sentence_transformers.models."


@dataclass(frozen=True)
class TextSpec(Spec):
    """A text encoder.

    Attributes:
        name: ``transformer`` or ``static``.
        size: most tokens of a text; the rest is cut off.
        tokenizer: the tokenizer, as the JSON of the tokenizers library.
        config: the network's configuration, as transformers writes it; for ``static`` its ``dim``.
        pooling: how the vectors of tokens become one: ``mean``, ``cls`` (the first) or ``max``.
        normalised: whether whoever made it scaled its vectors to length 1; sentence-transformers then does too.
    """

    size: int
    tokenizer: str = field(default="", repr=False)
    config: dict[str, Any] = field(default_factory=dict)
    pooling: str = "mean"
    normalised: bool = True
    modality: ClassVar[str] = "text"
    weights_file: ClassVar[str] = "model.safetensors"  # where transformers looks for it

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values; tokenizer and configuration have files of their own."""
        return {name: value for name, value in super().to_dict().items() if name not in ("tokenizer", "config")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], files: Files) -> TextSpec:
        """Read what `to_dict` and `files` gave."""
        config = json.loads(files[_CONFIG])
        return super().from_dict({**values, "tokenizer": files[_TOKENIZER].decode(), "config": config}, files)

    @property
    def files(self) -> dict[str, bytes]:
        """The tokenizer, the configuration, and what sentence-transformers wants to find in the folder."""
        config = json.dumps(self.config, indent=2, ensure_ascii=False)
        return {_TOKENIZER: self.tokenizer.encode(), _CONFIG: config.encode(), **_for_sentence_transformers(self)}

    @property
    def dense(self) -> str:
        """Folder of the linear layer for sentence-transformers."""
        return "1_Dense" if self.name == "static" else "2_Dense"

    @cached_property
    def special(self) -> dict[str, int]:
        """Number of each token that stands for no word, by its text."""
        added = json.loads(self.tokenizer)["added_tokens"]
        return {token["content"]: int(token["id"]) for token in added if token["special"]}

    def load_tokenizer(self) -> Tokenizer:
        """Return the tokenizer, never padding and cutting at ``size`` tokens.

        Static vectors have no places: nothing is cut, and no marks are put around a text; so does
        sentence-transformers.
        """
        from tokenizers import Tokenizer

        described = json.loads(self.tokenizer)
        if self.name == "static":
            described["post_processor"] = None
        made = Tokenizer.from_str(json.dumps(described))
        made.no_padding()
        if self.name == "static":
            made.no_truncation()
        else:
            made.enable_truncation(self.size)
        return made


def _for_sentence_transformers(spec: TextSpec) -> dict[str, bytes]:
    """Return the small files that make a folder with weights, tokenizer and configuration loadable."""
    kinds = [("StaticEmbedding", "")] if spec.name == "static" else [("Transformer", ""), ("Pooling", "1_Pooling")]
    if spec.projection:
        kinds.append(("Dense", spec.dense))
    if spec.normalised:
        kinds.append(("Normalize", f"{len(kinds)}_Normalize"))
    modules = [{"idx": i, "name": str(i), "path": path, "type": _TYPE + kind} for i, (kind, path) in enumerate(kinds)]
    files: dict[str, Any] = {"modules.json": modules, "config_sentence_transformers.json": {"__version__": {}}}
    if spec.projection:
        width = int(spec.config["hidden_size" if spec.name == "transformer" else "dim"])
        files[f"{spec.dense}/config.json"] = {
            "in_features": width,
            "out_features": spec.projection,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
    if spec.name == "transformer":
        special = {text.strip("[]<>/").lower() + "_token": text for text in spec.special if text.isascii()}
        roles = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        files["1_Pooling/config.json"] = {
            "word_embedding_dimension": int(spec.config["hidden_size"]),
            **{mode: name == spec.pooling for name, mode in POOLINGS.items()},
        }
        files["sentence_bert_config.json"] = {"max_seq_length": spec.size, "do_lower_case": False}
        files["tokenizer_config.json"] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": spec.size,
            **{role: special[role] for role in roles if role in special},
        }
    return {name: json.dumps(value, indent=2).encode() for name, value in files.items()}
