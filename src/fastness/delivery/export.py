"""Export: one form of a bundle, measured before it is called one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastness import bundle as bundles
from fastness.core.errors import BadInput, GateRefused
from fastness.core.files import replace_folder, sha256_file, write_bytes, write_json
from fastness.core.hardware import describe, versions
from fastness.core.seeds import numpy_generator
from fastness.data.show import plural
from fastness.delivery.forms import FORMS, Form, Source
from fastness.delivery.graph import graph_of
from fastness.delivery.intake import KINDS, Intake, Sample, intake_of
from fastness.delivery.parity import Parity, compared
from fastness_runtime import load as load_export
from fastness_runtime.encoder import DESCRIPTION, FORMAT

_COMPARED = 1000  # items
PARITY = "parity.json"


@dataclass(frozen=True)
class Export:
    """What an export gave.

    Attributes:
        folder: where it lies; `fastness_runtime.load` takes it.
        form: its form.
        bytes: of all its files.
        parity: how it compares with the encoder.
    """

    folder: Path
    form: str
    bytes: int
    parity: Parity


def export(
    bundle: bundles.Bundle | str | Path,
    data: Any,
    form: str = "onnx",
    *,
    side: str | None = None,
    out: str | Path | None = None,
    floor: float | None = None,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
    **columns: str | None,
) -> Export:
    """Write a bundle's encoder as one graph, with its preprocessing, pooling and normalisation inside.

    Args:
        bundle: a bundle or its path.
        data: real items, by which the export is compared with the encoder; see `open_data`. Up to 1,000 of them are
            taken.
        form: see `forms.FORMS`.
        side: which side of things with several, by its column's name or its modality.
        out: folder of the export; default: ``exports/FORM`` in the bundle's.
        floor: least cosine between the two embeddings of an item that is let pass; default: the form's.
        seed: by which items are taken.
        say: called with a line of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: the bundle, the data or the form is unusable.
        GateRefused: an item's embedding differs by more than the floor allows; nothing is written.
    """
    kind = FORMS.get(form)()
    if not isinstance(bundle, bundles.Bundle):
        bundle = bundles.load(bundle)
    if bundle.modality == "sides" and side is None:
        raise BadInput(f"{bundle.path}: has several sides, and a graph takes one; name it (--side NAME)")
    whole, bundle = bundle, bundle if side is None else bundle.of_side(side)
    if kind.modalities and bundle.modality not in kind.modalities:
        raise BadInput(f"--format {form}: is made of encoders of {' or '.join(map(plural, kind.modalities))} alone")
    say = say or (lambda line: None)
    say("items …")
    sample = _sample(bundle, data, seed, columns)
    folder = Path(out) if out is not None else whole.path / "exports" / (form if side is None else f"{form}-{side}")
    result: list[Parity] = []

    def fill(temporary: Path) -> None:
        say("graph …")
        _write(kind, form, bundle, side, temporary)
        say("comparing with the encoder …")
        parity = compared(load_export(temporary), sample, kind.floor if floor is None else floor)
        if not parity.holds:
            raise GateRefused(
                f"{folder}: {form} refused: item {parity.worst} of {parity.items} has a cosine of {parity.least:.5f} "
                f"to what the encoder gives, less than {parity.floor}; choose another form, or say --floor"
            )
        write_json(temporary / PARITY, parity.to_dict() | {"data": _described(data), "hardware": describe()})
        result.append(parity)

    replace_folder(folder, fill)
    return Export(folder, form, sum(file.stat().st_size for file in folder.iterdir()), result[0])


def _write(kind: Form, form: str, bundle: bundles.Bundle, side: str | None, folder: Path) -> None:
    """Write the graph, the files beside it, and what describes them."""
    intake = intake_of(bundle.encoder)
    for name, content in intake.files.items():
        write_bytes(folder / name, content)
    about: dict[str, Any] = {
        "format": FORMAT,
        "form": form,
        "runtime": kind.runtime,
        "bundle": bundle.id,
        "side": side,
        "modality": bundle.modality,
        "dim": bundle.dim,
        **intake.about,
    }

    about["graph"] = kind.write(Source(bundle, intake, graph_of(bundle.encoder, intake)), folder)
    about["input"] = {"name": intake.name, "dtype": str(intake.example.dtype).removeprefix("torch.")}
    about["input"]["shape"] = _shape(intake)
    about["outputs"] = {"embeddings": "float32, rows of length 1", "features": "float32, as the network gives them"}
    about["made_with"] = versions("fastness", "torch", "onnx", "onnxscript", "onnxruntime", "openvino")
    about["files"] = {file.name: sha256_file(file) for file in sorted(folder.iterdir())}
    write_json(folder / DESCRIPTION, about)


def _shape(intake: Intake) -> list[int | str]:
    names = {0: "batch", **intake.any_size, **({2: "height", 3: "width"} if intake.before else {})}
    return [names.get(place, size) for place, size in enumerate(intake.example.shape)]


def _sample(bundle: bundles.Bundle, data: Any, seed: int, columns: dict[str, str | None]) -> Sample:
    dataset = bundle.open(data, **columns)
    rows = numpy_generator(seed, "parity").permutation(len(dataset))[:_COMPARED]
    sample = KINDS.get(bundle.modality).sample(bundle, dataset.select(np.sort(rows)))
    if not len(sample):
        raise BadInput(f"{dataset.whole.source}: no usable item to compare by; give others")
    return sample


def _described(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else type(data).__name__
