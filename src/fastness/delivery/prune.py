"""Pruning: units and layers that matter least on real items are taken out, and the encoder is really smaller."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastness import bundle as bundles
from fastness.core.errors import BadInput
from fastness.core.seeds import numpy_generator
from fastness.data.items import Items
from fastness.delivery.prunable import Family, Units, family_of
from fastness.encoders import Encoder, build

_ITEMS, _FEW, _BATCH = 1024, 256, 64  # to measure units by, and layers, of which each costs a pass over all
_LANES = 8  # float32 numbers that a CPU's instruction takes: of 11 channels its kernels are slower than of 16
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Size:
    """How large an encoder is: parameters, and multiplications and additions for one item (of a text: of 32 tokens)."""

    parameters: int
    operations: int


@dataclass(frozen=True)
class Pruned:
    """What pruning gave: the new bundle, the blocks that are gone, and the sizes before and after."""

    folder: Path
    id: str
    gone: tuple[int, ...]
    before: Size
    after: Size


def prune(
    bundle: bundles.Bundle | str | Path,
    data: Any,
    keep: float = 1.0,
    *,
    layers: int = 0,
    out: str | Path,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Pruned:
    """Write a bundle whose encoder has fewer units in each block, and fewer blocks.

    Blocks go first: each time the one without which the items' vectors turn least. Then in every block that is left
    the least important channels, neurons or heads; a unit's importance is ``var(a) * |w|^2``, the variance of what it
    gives times the squared length of the weights that read it: how much of what varies in the next layer is its doing.
    Its mean is put into the next layer's bias (An et al. 2023, FLAP, arXiv 2312.11983, equations 5 and 7; the share is
    the same in every block here). Nothing is trained: let it recover with ``train --method distil --init``.

    Args:
        bundle: a bundle or its path.
        data: real items, of which up to 1,024 are looked at; of a set with splits those of ``train``.
        keep: share of the units that each block keeps, at least one; in (0, 1]. More than 8 channels or neurons are
            kept in multiples of 8, which kernels of CPUs are made for.
        layers: how many blocks are taken out.
        out: folder of the new bundle.
        seed: by which items are taken.
        say: called with a line of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: a network that nobody has said how to cut, a share out of range, or more layers than can go.
    """
    if not isinstance(bundle, bundles.Bundle):
        bundle = bundles.load(bundle)
    if not 0 < keep <= 1:
        raise BadInput(f"--keep {keep}: give the share of units that stay, above 0 and at most 1")
    encoder = bundle.encoder
    family = family_of(encoder)
    most = min(len(family.removable()), len(family.blocks) - 1)
    if not 0 <= layers <= most:
        raise BadInput(f"--layers {layers}: of this {encoder.spec.name} at most {most} blocks can go")
    say = say or (lambda line: None)
    items = _some(bundle, data, seed, columns)
    gone: list[int] = []
    for _ in range(layers):
        gone.append(_least(bundle, family, gone, items))
        say(f"block {gone[-1]} goes …")
    units = [u for u in family.units() if u.block not in gone]
    say("how much each unit matters …")
    smaller = _cut(encoder, family, units, gone, _moments(bundle, family, units, gone, items), keep)
    recipe = {"method": "pruned", "encoder": encoder.spec.name, "keep": keep, "layers": layers, "seed": seed}
    identity = bundles.write(Path(out), smaller, recipe | {"parents": {"pruned": bundle.id}}, bundle)
    return Pruned(Path(out), identity, tuple(sorted(gone)), size_of(encoder), size_of(smaller))


def size_of(encoder: Encoder) -> Size:
    """Return how large an encoder is."""
    from torch.utils.flop_counter import FlopCounterMode

    item: torch.Tensor = torch.zeros(1, 32, dtype=torch.int32)
    if encoder.spec.modality == "image":
        side = encoder.spec.size  # type: ignore[attr-defined]
        item = torch.zeros(1, 3, side, side)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(item)
    return Size(sum(p.numel() for p in encoder.parameters()), int(counter.get_total_flops()))


def _some(bundle: bundles.Bundle, data: Any, seed: int, columns: dict[str, str | None]) -> Items:
    dataset = bundle.open(data, **columns).training_part()
    rows = np.sort(numpy_generator(seed, "prune").permutation(len(dataset))[:_ITEMS])
    items = bundle.encoder.prepare(dataset.select(rows))
    if len(items) < 2:
        raise BadInput(f"{dataset.whole.source}: {len(items)} usable items; pruning needs at least 2 to look at")
    return items


@contextlib.contextmanager
def _without(family: Family, gone: Sequence[int]) -> Iterator[None]:
    """Let blocks give what they get."""

    def passed(module: nn.Module, taken: tuple[Any, ...], given: Any) -> Any:
        return (taken[0], *given[1:]) if isinstance(given, tuple) else taken[0]

    handles = [family.blocks[number].register_forward_hook(passed) for number in gone]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _least(bundle: bundles.Bundle, family: Family, gone: list[int], items: Items) -> int:
    """Return the block without which, beside those gone, the vectors turn least."""
    few = items.select(np.arange(min(len(items), _FEW)))
    whole = bundle.embed_items(few, batch_size=_BATCH)

    def kept(number: int) -> float:
        with _without(family, [*gone, number]):
            return float((bundle.embed_items(few, batch_size=_BATCH) * whole).sum(1).mean())

    return max((number for number in family.removable() if number not in gone), key=kept)


def _moments(
    bundle: bundles.Bundle, family: Family, units: Sequence[Units], gone: Sequence[int], items: Items
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return mean and variance, float64, of each input of each reader, over items and places."""
    sums: dict[str, tuple[int, torch.Tensor, torch.Tensor]] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(module: nn.Module, taken: tuple[Any, ...]) -> None:
            x = taken[0].detach().double()
            x = x.movedim(1, -1) if isinstance(module, nn.Conv2d) else x
            x = x.flatten(0, -2)
            n, first, second = sums.get(name, (0, x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])))
            sums[name] = (n + len(x), first + x.sum(0), second + x.square().sum(0))

        return look

    modules = dict(bundle.encoder.named_modules())
    handles = [modules[u.reader].register_forward_pre_hook(watch(u.reader)) for u in units]
    try:
        with _without(family, gone):
            bundle.embed_items(items, batch_size=_BATCH)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: (first / n, (second / n - (first / n).square()).clamp_min(0)) for name, (n, first, second) in sums.items()
    }


def _cut(
    encoder: Encoder,
    family: Family,
    units: Sequence[Units],
    gone: Sequence[int],
    moments: dict[str, tuple[torch.Tensor, torch.Tensor]],
    keep: float,
) -> Encoder:
    """Return a new encoder with what is kept."""
    weights: Weights = {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}
    kept: dict[tuple[int, str], int] = {}
    for u in units:
        number = kept[u.block, u.kind] = _number(u, keep)
        mean, variance = moments[u.reader]
        lengths = weights[f"{u.reader}.weight"].double().transpose(0, 1).flatten(1).square().sum(1)
        importance = (variance * lengths).view(u.count, u.size).sum(1)
        # Of equals the first stay: sorted, then back in their order.
        stay = importance.sort(descending=True, stable=True).indices[:number].sort().values
        _take(weights, u, stay, mean)
    smaller = build(family.smaller(kept, gone))
    smaller.load_state_dict(_renamed(weights, family, gone))
    return smaller.eval()


def _number(u: Units, keep: float) -> int:
    """Return how many units stay: the share, of channels and neurons the multiple of 8 that is nearest to it."""
    number = max(1, round(keep * u.count))
    if u.size == 1 and _LANES < number < u.count:
        number = min(u.count, _LANES * round(number / _LANES))
    return number


def _take(weights: Weights, u: Units, stay: torch.Tensor, mean: torch.Tensor) -> None:
    """Leave of the units those that stay, in place; of the others, their mean."""
    inputs = (stay[:, None] * u.size + torch.arange(u.size)).flatten()
    rows = (torch.arange(u.copies)[:, None] * u.count * u.size + inputs).flatten()
    reader = weights[f"{u.reader}.weight"]  # [outputs, inputs] or [outputs, inputs, height, width]
    lost = torch.ones(len(mean), dtype=torch.bool).index_fill(0, inputs, False)
    constant = reader.double().reshape(*reader.shape[:2], -1).sum(2)[:, lost] @ mean[lost]
    name, sign = u.shift
    weights[name] = (weights[name].double() + sign * constant).to(weights[name].dtype)
    weights[f"{u.reader}.weight"] = reader[:, inputs]
    for maker in u.makers:
        weights[maker] = weights[maker][rows]


def _renamed(weights: Weights, family: Family, gone: Sequence[int]) -> Weights:
    """Return the weights under the names that the smaller network gives them."""
    left = [i for i in range(len(family.blocks)) if i not in gone]
    found = {}
    for name, tensor in weights.items():
        rest = name.removeprefix(family.prefix)
        if rest != name:
            number, _, inner = rest.partition(".")
            if int(number) in gone:
                continue
            name = f"{family.prefix}{left.index(int(number)) if family.renumbered else number}.{inner}"
        found[name] = tensor
    return found
