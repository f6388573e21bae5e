"""The networks of text encoders: a transformer by its configuration, and the mean of static token vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fastness.core.errors import BadInput
from fastness.encoders.text_spec import NETS, TextSpec

_OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet")
_OF_LIKE_LENGTH = 32  # texts that a processor computes together in training


def pooled(states: torch.Tensor, there: torch.Tensor, how: str) -> torch.Tensor:
    """Return one vector a text, float32 ``[B, D]``, of its tokens' ``[B, L, D]``, where bool ``[B, L]`` says so."""
    states = states.to(torch.promote_types(states.dtype, torch.float32))
    if how == "cls":
        return states[:, 0]
    here = there[:, :, None]
    if how == "max":
        return states.masked_fill(~here, float("-inf")).amax(1)
    return (states * here).sum(1) / here.sum(1).clamp_min(1)


class TransformerNet(nn.Module):
    """A transformers model and pooling; from tokens int32 ``[B, L]``, -1 behind the end, to ``[B, dim]``."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        # Weights are float32 whatever they were saved as, and code that a configuration names is never fetched or run.
        values = {k: v for k, v in spec.config.items() if k not in ("auto_map", "dtype", "torch_dtype")}
        try:
            kind = values.pop("model_type")
            config = AutoConfig.for_model(kind, **values)
            made: Any = AutoModel
            self.net: Any = made.from_config(
                config, attn_implementation="sdpa", dtype=torch.float32, trust_remote_code=False
            )
        except Exception as error:  # noqa: BLE001 - a wrong configuration raises many kinds; all mean the same here
            raise BadInput(f"transformer: {' '.join(str(error).split())[:200]}") from None
        if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
            raise BadInput(f"transformer: a {kind} is no encoder of texts alone; adopt one like BERT")
        places = getattr(config, "max_position_embeddings", None) or spec.size
        if kind in _OFFSET:
            places -= 2  # RoBERTa and its kin number places from two on
        if spec.size > places:
            raise BadInput(f"--size {spec.size}: this network has places for {places} tokens; ask for no more")
        self.pooling = spec.pooling
        self.dim = int(config.hidden_size)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, for freezing."""
        found = next((m for m in self.net.modules() if isinstance(m, nn.ModuleList) and len(m) > 0), None)
        return found if found is not None else nn.ModuleList()

    def states(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the vector of each token, ``[B, L, dim]``."""
        there = tokens >= 0
        found = self.net(input_ids=tokens.clamp_min(0).long(), attention_mask=there.long())
        out: torch.Tensor = found.last_hidden_state
        return out

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """See the class.

        In training on a processor, texts of like length go through the network together, else most of its work
        would be on what stands behind the shorter ones' ends; when encoding, batches come so already.
        """
        if not self.training or tokens.device.type != "cpu":
            return self._vectors(tokens)
        lengths = (tokens >= 0).sum(1)
        order = lengths.argsort(descending=True, stable=True)
        parts = [self._vectors(tokens[rows, : int(lengths[rows[0]])]) for rows in torch.split(order, _OF_LIKE_LENGTH)]
        return torch.cat(parts)[order.argsort()]

    def _vectors(self, tokens: torch.Tensor) -> torch.Tensor:
        return pooled(self.states(tokens), tokens >= 0, self.pooling)


class StaticNet(nn.Module):
    """One vector a token, whatever stands around it; their mean. In training tokens' vectors are dropped."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        table = nn.Embedding(spec.config["vocab_size"], spec.config["dim"])
        nn.init.normal_(table.weight, std=spec.config["dim"] ** -0.5)
        self.net = nn.ModuleDict({"embedding": table})
        self.dropout = nn.Dropout(spec.config.get("dropout", 0.0))
        self.pooling = spec.pooling
        self.dim = int(spec.config["dim"])

    def states(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the vector of each token, ``[B, L, dim]``."""
        out: torch.Tensor = self.dropout(self.net["embedding"](tokens.clamp_min(0).long()))
        return out

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """See `TransformerNet`."""
        return pooled(self.states(tokens), tokens >= 0, self.pooling)


NETS.register("transformer")(TransformerNet)
NETS.register("static")(StaticNet)
