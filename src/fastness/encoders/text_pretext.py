"""What prediction tasks add to a text encoder: a layer that guesses masked tokens, a decoder that repeats the text."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fastness.core.errors import BadInput
from fastness.encoders.encoder import Encoder
from fastness.encoders.text_nets import pooled
from fastness.encoders.text_spec import TextSpec

_SHARE = 0.15  # of the words that are masked, Devlin et al. 2019
_DELETED = 0.6  # of the tokens that the encoder of TSDAE does not see, Wang et al. 2021


def _words(tokens: torch.Tensor, special: torch.Tensor) -> torch.Tensor:
    return (tokens >= 0) & ~torch.isin(tokens, special)


class MaskedTokens(nn.Module):
    """Mask 15 % of the words and predict them: 80 % become the mask token, 10 % a random one, 10 % stay.

    Devlin et al. 2019, arXiv 1810.04805. The output layer is the table of token vectors, as there.
    """

    special: torch.Tensor

    def __init__(self, spec: TextSpec, dim: int) -> None:
        super().__init__()
        mask = next((spec.special[name] for name in ("[MASK]", "<mask>") if name in spec.special), None)
        if mask is None:
            raise BadInput("--method masked: this tokenizer has no mask token; use simclr or denoise")
        self.mask = mask
        self.register_buffer(
            "special", torch.tensor(sorted(spec.special.values()), dtype=torch.int32), persistent=False
        )
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim))
        self.bias = nn.Parameter(torch.zeros(int(spec.config["vocab_size"])))

    def forward(self, encoder: Encoder, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Encoder.pretext`."""
        word = _words(tokens, self.special)
        lots = torch.rand(tokens.shape, device=tokens.device)
        hidden = word & ((lots < _SHARE) | (lots == lots.masked_fill(~word, 2.0).amin(1, keepdim=True)))
        kind = torch.rand(tokens.shape, device=tokens.device)
        strange = torch.randint_like(tokens, len(self.bias))
        seen = torch.where(hidden & (kind < 0.8), self.mask, tokens)
        seen = torch.where(hidden & (kind >= 0.8) & (kind < 0.9), strange, seen)
        states = encoder.backbone.states(seen)  # type: ignore[operator]
        table = _table(encoder)
        logits = F.linear(self.transform(states[hidden]), table, self.bias)
        errors = F.cross_entropy(_widened(logits), tokens[hidden].long(), reduction="none")
        rows = hidden.nonzero()[:, 0]
        total = errors.new_zeros(len(tokens)).index_add(0, rows, errors)
        return pooled(states, tokens >= 0, "mean"), total / hidden.sum(1).clamp_min(1)


class RepeatedText(nn.Module):
    """Delete 60 % of the tokens; a decoder of one layer says the text again, seeing of it one vector alone.

    Wang et al. 2021, arXiv 2104.06979, with a decoder of its own that shares the table of token vectors.
    """

    special: torch.Tensor

    def __init__(self, spec: TextSpec, dim: int) -> None:
        super().__init__()
        self.register_buffer(
            "special", torch.tensor(sorted(spec.special.values()), dtype=torch.int32), persistent=False
        )
        self.places = nn.Embedding(spec.size, dim)
        heads = max(1, dim // 64)
        heads = heads if dim % heads == 0 else 1
        self.layer = nn.TransformerDecoderLayer(dim, heads, 4 * dim, activation="gelu", batch_first=True)
        self.bias = nn.Parameter(torch.zeros(int(spec.config["vocab_size"])))

    def forward(self, encoder: Encoder, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Encoder.pretext`."""
        tokens = tokens[:, : self.places.num_embeddings]  # those of static vectors come uncut
        lots = torch.rand(tokens.shape, device=tokens.device).masked_fill(~_words(tokens, self.special), -1.0)
        kept = (tokens >= 0) & ((lots < 0) | (lots > _DELETED) | (lots == lots.amax(1, keepdim=True)))
        order = (~kept).to(torch.int8).argsort(dim=1, stable=True)
        damaged = tokens.masked_fill(~kept, -1).gather(1, order)[:, : int(kept.sum(1).max())]
        features = encoder(damaged)
        table = _table(encoder)
        told = F.embedding(tokens[:, :-1].clamp_min(0).long(), table)
        told = told + self.places.weight[: told.shape[1]]
        later = torch.ones(told.shape[1], told.shape[1], dtype=torch.bool, device=told.device).triu(1)
        memory = features[:, None].to(told.dtype)
        states = self.layer(told, memory, tgt_mask=later)
        there = tokens[:, 1:] >= 0
        logits = F.linear(states[there], table, self.bias)
        errors = F.cross_entropy(_widened(logits), tokens[:, 1:][there].long(), reduction="none")
        total = errors.new_zeros(len(tokens)).index_add(0, there.nonzero()[:, 0], errors)
        return features, total / there.sum(1).clamp_min(1)


def _widened(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _table(encoder: Encoder) -> torch.Tensor:
    """Return the encoder's table of token vectors, ``[V, dim]``."""
    net: Any = encoder.backbone.net
    table = net["embedding"] if isinstance(net, nn.ModuleDict) else net.get_input_embeddings()
    weight = table.weight
    assert isinstance(weight, torch.Tensor)
    if weight.shape[1] != encoder.dim:
        raise BadInput("this method: the network's token vectors have another length than its output; use simclr")
    return weight
