"""Networks for tables: an MLP with residual blocks, and a transformer over columns."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from fastness.core.errors import BadInput
from fastness.encoders.cells import Cells
from fastness.encoders.table import NETS, TableSpec

_VECTOR = 8  # length of the MLP's vector for a category's value


class Embedding(nn.Module):
    """A vector for each value of each category; those of values that training never shows stay at zero.

    Args:
        cells: which places there are.
        length: of a vector.
    """

    def __init__(self, cells: Cells, length: int) -> None:
        super().__init__()
        weight = torch.randn(cells.places, length) / math.sqrt(length)
        special = torch.cat([cells.offset + cells.limit.long(), cells.offset + cells.limit.long() + 1])
        weight[special] = 0.0
        self.weight = nn.Parameter(weight)

    def forward(self, places: torch.Tensor) -> torch.Tensor:
        """Return vectors ``[B, categories, length]`` for places ``[B, categories]``."""
        return F.embedding(places, self.weight)


class ResidualBlock(nn.Module):
    """Two linear layers with batch normalisation, beside a straight way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, width]`` to the same."""
        return F.relu(x + self.inner(x))


class TableMLP(nn.Module):
    """Scaled numbers and categories' vectors, side by side, through a layer and ``layers`` residual blocks."""

    def __init__(self, spec: TableSpec) -> None:
        super().__init__()
        self.dim = int(spec.options["width"])
        self.cells = Cells(spec.schema)
        self.embedding = Embedding(self.cells, _VECTOR)
        inputs = self.cells.features + _VECTOR * self.cells.categories
        self.first = nn.Sequential(
            nn.Linear(inputs, self.dim, bias=False), nn.BatchNorm1d(self.dim), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(self.dim) for _ in range(spec.options["layers"])))

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """Coded cells float32 ``[B, C]`` to features ``[B, dim]``."""
        numbers, places = self.cells(cells)
        together = torch.cat([numbers, self.embedding(places).flatten(1)], 1)
        out: torch.Tensor = self.blocks(self.first(together))
        return out


class TransformerBlock(nn.Module):
    """Attention among tokens and a two-layer network on each, both normalised before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.network_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[B, tokens, width]`` to the same."""
        q, k, v = self.qkv(self.attention_norm(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        out: torch.Tensor = x + self.network(self.network_norm(x))
        return out


class FTTransformer(nn.Module):
    """Every column a token, and one more that gathers what they say; Gorishniy et al. 2021, arXiv 2106.11959."""

    def __init__(self, spec: TableSpec) -> None:
        super().__init__()
        width = self.dim = int(spec.options["width"])
        if width % 8:
            raise BadInput(f"--width {width}: {spec.name} takes a multiple of 8, the channels of a head")
        self.cells = Cells(spec.schema)
        self.embedding = Embedding(self.cells, width)
        bound = 1 / math.sqrt(width)
        self.scale = nn.Parameter(torch.empty(self.cells.features, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(self.cells.columns + self.cells.categories, width).uniform_(-bound, bound))
        self.gather = nn.Parameter(torch.empty(1, 1, width).uniform_(-bound, bound))
        of_column = torch.arange(self.cells.columns)[:, None] == self.cells.owner
        self.register_buffer("of_column", of_column.float(), persistent=False)
        self.blocks = nn.Sequential(*(TransformerBlock(width, width // 8) for _ in range(spec.options["layers"])))
        self.norm = nn.LayerNorm(width)

    of_column: torch.Tensor

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """Coded cells float32 ``[B, C]`` to features ``[B, dim]``."""
        numbers, places = self.cells(cells)
        measured = self.of_column @ (numbers.unsqueeze(2) * self.scale)  # [B, columns, width]
        tokens = torch.cat([measured, self.embedding(places)], 1) + self.bias
        tokens = torch.cat([self.gather.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens], 1)
        out: torch.Tensor = self.norm(self.blocks(tokens)[:, 0])
        return out


NETS.register("mlp")(TableMLP)
NETS.register("ft-transformer")(FTTransformer)
