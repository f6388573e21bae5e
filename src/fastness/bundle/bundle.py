"""Bundles: write, identify, load, embed.

The core is the weights (safetensors), ``encoder.json`` (architecture and preprocessing), ``recipe.json``,
``data.json``, ``items.parquet`` (the manifest), and what else the encoder needs (a tokenizer, a schema). The id is a
SHA-256 over their names and hashes. ``bundle.json`` lists them. Everything else in the folder is an attachment.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import nn

from fastness.bundle.whole import CORE, FORMAT, core_of, identity_of, verified
from fastness.core.errors import BadInput
from fastness.core.files import replace_folder, sha256_file, write_bytes, write_json
from fastness.core.hardware import fast_bf16
from fastness.data import Dataset, open_data
from fastness.data.items import Items, Positions
from fastness.data.manifest import Manifest
from fastness.data.show import plural
from fastness.data.sides import sides_of
from fastness.encoders import Encoder, build, modality, read_spec
from fastness_runtime import signature
from fastness_runtime.encoder import DESCRIPTION

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """Embeddings of a data set: row i of ``vectors`` is item i of ``dataset``."""

    vectors: Floats
    dataset: Dataset

    @property
    def ids(self) -> list[str]:
        """The items' names."""
        return self.dataset.manifest.names


class Bundle:
    """A loaded bundle.

    Attributes:
        path: its folder.
        id: SHA-256 of its core, hex.
        encoder: in eval mode, on CPU.
        recipe: how it was trained, as JSON values.
        data: summary of what it was trained on.
    """

    def __init__(
        self, path: Path, identity: str, encoder: Encoder, recipe: dict[str, Any], data: dict[str, Any]
    ) -> None:
        self.path, self.id, self.recipe, self.data = path, identity, recipe, data
        # Channels last is two to four times as fast on CPUs and changes nothing else.
        self.encoder = encoder.eval().to(memory_format=torch.channels_last)

    def __repr__(self) -> str:
        return f"Bundle({self.encoder.spec.name}, {self.dim} dimensions, {self.id[:12]}, '{self.path}')"

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.encoder.dim

    @property
    def modality(self) -> str:
        """What kind of items it takes."""
        return self.encoder.spec.modality

    @cached_property
    def item_hashes(self) -> frozenset[str]:
        """SHA-256 (hex) of every item it was trained on."""
        import pyarrow.parquet as pq

        column = pq.read_table(self.path / "items.parquet", columns=["sha256"])["sha256"]
        return frozenset(value.as_py().hex() for value in column)

    def embed(
        self,
        data: Any,
        *,
        side: str | None = None,
        normalize: bool = True,
        batch_size: int = 256,
        precision: str = "float32",
        **columns: str | None,
    ) -> Floats:
        """Return embeddings float32 ``[N, dim]``; row i is item i.

        Args:
            data: a path or address (see `open_data`), a `Dataset`, a uint8 array ``[N, C, H, W]`` or
                ``[N, H, W, C]``, or a list of paths, arrays or pictures.
            side: which side of things with several the items are: its column's name, or its modality.
            normalize: scale each row to length 1.
            batch_size: items at a time; changes speed, not results.
            precision: ``float32``; ``bf16``, which changes the third digit or so; ``auto`` for bf16 where the hardware
                has it, two to three times as fast.

        Raises:
            BadInput: the data cannot be opened, or an item of a list or array is damaged; names its index.
                In a folder or file a damaged item is passed over: use `embed_dataset` to learn which.
        """
        if side is not None:
            return self.of_side(side).embed(
                data, normalize=normalize, batch_size=batch_size, precision=precision, **columns
            )
        in_hand = not isinstance(data, str | Path | Dataset)
        if in_hand and hasattr(data, "__len__") and len(data) == 0:
            return np.zeros((0, self.dim), np.float32)
        if not in_hand or columns:
            return self.embed_dataset(
                self.open(data, **columns), normalize=normalize, batch_size=batch_size, precision=precision
            ).vectors
        dataset = modality(self.modality).dataset(data)
        return self.embed_batches(self.encoder.direct(dataset, batch_size), len(dataset), normalize, precision)

    def open(self, data: Any, **columns: str | None) -> Dataset:
        """Open data as items of this bundle's modality; see `open_data`."""
        wanted = None if self.modality == "sides" else self.modality
        return open_data(data, modality=wanted, **columns)

    def of_side(self, name: str) -> Bundle:
        """Return this bundle for items of one side, by its column's name or its modality.

        Raises:
            BadInput: there is no such side.
        """
        found = copy.copy(self)
        found.encoder = self.encoder.side(name)
        return found

    def one_side(self, name: str | None) -> Bundle:
        """Return this bundle for items of one kind: of one side, where it has several.

        Raises:
            BadInput: it has several and none is named, or one is and it has none.
        """
        if name is None and self.modality == "sides":
            raise BadInput(f"{self.path}: has several sides, and this takes one; name it (--side NAME)")
        if name is not None and self.modality != "sides":
            raise BadInput(f"{self.path}: has no sides, and so none called '{name}'; leave --side out")
        return self if name is None else self.of_side(name)

    def ask(self, query: str) -> tuple[Any, Floats]:
        """Return the item that a query means (a picture's bytes, a text) and its embedding, float32 ``[1, dim]``.

        Raises:
            BadInput: it is nothing that this bundle can embed.
        """
        side, item = self.encoder.meant(query)
        try:
            return item, self.embed([item], side=side)
        except BadInput as error:
            raise BadInput(f"{query[:200]}: {str(error).split(': ', 1)[-1]}") from None

    def embed_dataset(
        self, dataset: Dataset, *, normalize: bool = True, batch_size: int = 256, precision: str = "float32"
    ) -> Embedded:
        """Return embeddings of a data set with the items they belong to; damaged ones are in its quarantine."""
        bundle = self.taking(dataset)
        items = bundle.encoder.prepare(dataset)
        vectors = bundle.embed_items(items, normalize=normalize, batch_size=batch_size, precision=precision)
        return Embedded(vectors, items.dataset)

    def taking(self, dataset: Dataset) -> Bundle:
        """Return this bundle as one that takes a data set's items: for those of one side, where it has several.

        Raises:
            BadInput: it takes other items.
        """
        if dataset.sides > 1:
            names = ", ".join(sides_of(dataset))
            raise BadInput(f"{dataset.whole.source}: each thing has several sides; name the column of one: {names}")
        if dataset.modality != self.modality and self.modality != "sides":
            held, taken = plural(dataset.modality), plural(self.modality)
            raise BadInput(f"{dataset.whole.source}: holds {held}; this bundle takes {taken}")
        if dataset.modality != self.modality:
            return self.of_side(dataset.modality)
        return self

    def embed_items(
        self, items: Items, *, normalize: bool = True, batch_size: int = 256, precision: str = "float32"
    ) -> Floats:
        """Return embeddings of items that are already made ready for this encoder."""
        return self.embed_batches(items.batches(batch_size), len(items), normalize, precision)

    def embed_batches(
        self,
        batches: Iterator[tuple[Positions, torch.Tensor]],
        n: int,
        normalize: bool = True,
        precision: str = "float32",
    ) -> Floats:
        """Return embeddings float32 ``[n, D]`` of batches with their positions; zeros where no batch has an item."""
        out = np.zeros((n, self.dim), np.float32)
        device = self.encoder.device
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=_narrow(precision, device)):
            for positions, batch in batches:
                z = self.encoder(self.encoder.preprocess(batch.to(device)))
                if normalize:
                    z = nn.functional.normalize(z, dim=1)
                out[positions] = z.cpu().numpy()
        return out

    def to(self, device: torch.device | str) -> Bundle:
        """Move the encoder to a device and return this bundle."""
        self.encoder.to(device)
        return self


def write(folder: Path, encoder: Encoder, recipe: dict[str, Any], manifest: Manifest | Bundle) -> str:
    """Write a bundle atomically and return its id.

    Args:
        folder: the bundle's folder; what was there is replaced.
        encoder: whose weights and spec are kept.
        recipe: how it was made, JSON-able.
        manifest: what it was trained on, may be empty; or the bundle that was trained on the same.
    """
    identity = ""

    def fill(temporary: Path) -> None:
        nonlocal identity
        write_bytes(temporary / encoder.spec.weights_file, serialised(encoder.weights()))
        write_json(temporary / "encoder.json", encoder.spec.to_dict())
        write_json(temporary / "recipe.json", recipe)
        if isinstance(manifest, Manifest):
            manifest.write(temporary)
        else:
            for name in ("data.json", "items.parquet"):
                write_bytes(temporary / name, (manifest.path / name).read_bytes())
        further = encoder.files
        for name, content in further.items():
            write_bytes(temporary / name, content)
        hashes = {name: sha256_file(temporary / name) for name in (encoder.spec.weights_file, *CORE, *further)}
        identity = identity_of(hashes)
        write_json(temporary / "bundle.json", {"format": FORMAT, "id": identity, "core": hashes, "dim": encoder.dim})

    if isinstance(manifest, Bundle) and folder.resolve() == manifest.path.resolve():
        raise BadInput(f"{folder}: is what this is made from; name another folder")
    replace_folder(folder, fill, "bundle.json")
    return identity


def load(path: str | Path, encoder: nn.Module | None = None, *, key: signature.Keys = None) -> Bundle:
    """Load a bundle; no pickle, no network.

    Args:
        path: the bundle's folder, a run's folder that has one, or the folder of an export in a bundle's: what is
            measured of it then is what the export computes.
        encoder: the module itself, for a bundle of a module of the user's own.
        key: files of public keys, of which one must have signed every file of the bundle; default: those that the
            environment trusts (``FASTNESS_TRUSTED_KEYS``); an empty list for none.

    Raises:
        BadInput: no bundle there, a file is missing or was changed, or the weights do not fit.
        GateRefused: a key is given, and no signature of it covers just what is there.
    """
    folder = Path(path)
    if not (folder / "bundle.json").exists() and (folder / "bundle" / "bundle.json").exists():
        folder = folder / "bundle"
    if (folder / DESCRIPTION).exists() and not (folder / "bundle.json").exists():
        from fastness.bundle.exported import load_exported

        return load_exported(folder, key)
    if trusted := signature.trusted(key):
        verified(folder, trusted)
    described = core_of(folder)
    try:
        files = {name: (folder / name).read_bytes() for name in described["core"] if not name.endswith(".safetensors")}
        spec = read_spec(json.loads(files["encoder.json"]), files)
        if spec.weights_file not in described["core"]:
            raise BadInput(f"{folder / 'bundle.json'}: its list of files is not a bundle's; get an intact copy")
        built = build(spec, encoder)
        built.load_weights(load_file(folder / spec.weights_file))
        recipe, data = json.loads(files["recipe.json"]), json.loads(files["data.json"])
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BadInput(f"{folder}: is no readable bundle ({type(error).__name__}: {error})") from None
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise BadInput(f"{folder}: its weights do not fit its encoder ({said})") from None
    return Bundle(folder, described["id"], built, recipe, data)


def _narrow(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16."""
    if precision not in ("float32", "bf16", "auto"):
        raise BadInput(f"precision {precision}: known: float32, bf16, auto")
    return precision == "bf16" or (precision == "auto" and fast_bf16(device.type))
