"""Export: one form of a bundle, measured before it is called one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastness import bundle as bundles
from fastness.bundle import heads
from fastness.bundle.exported import Exported
from fastness.bundle.heads import Head
from fastness.core.errors import BadInput, GateRefused
from fastness.core.files import replace_folder, sha256_file, write_bytes, write_json
from fastness.core.hardware import describe, versions
from fastness.core.seeds import numpy_generator
from fastness.data.show import plural
from fastness.delivery.forms import FORMS, Form, Source
from fastness.delivery.graph import graph_of
from fastness.delivery.intake import KINDS, Intake, Sample, intake_of
from fastness.delivery.parity import Parity, compared, sample_of
from fastness.delivery.square import ROUNDED
from fastness_runtime import load as load_export
from fastness_runtime.encoder import DESCRIPTION, FORMAT
from fastness_runtime.items import INTAKES

_COMPARED = 1000  # items
_FEW = 16  # items; of fewer the same ones calibrate and compare
PARITY, SAMPLE = "parity.json", "sample.npz"


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
    head: str | None = None,
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
        head: name of a head of the bundle (see `fit`), to answer within the graph: outputs ``probabilities`` and
            ``novelty`` beside the others.
        out: folder of the export; default: ``exports/FORM`` in the bundle's.
        floor: least cosine between the two embeddings of an item that is let pass, or of a ``static`` form least rank
            correlation; default: the form's, of pictures at most 0.9999, since resizing rounds a few pixels otherwise.
        seed: by which items are taken.
        say: called with a line of progress.
        **columns: see `open_data`.

    Raises:
        BadInput: the bundle, the head, the data or the form is unusable.
        GateRefused: an item's embedding differs by more than the floor allows, or more than a few items are given
            another answer by the head; nothing is written.
    """
    kind = FORMS.get(form)()
    if not isinstance(bundle, bundles.Bundle):
        bundle = bundles.load(bundle)
    if isinstance(bundle, Exported):
        raise BadInput(f"{bundle.path}: is an export; export the bundle that it was made of")
    answers = None if head is None else _answering(bundle, head, side)
    whole, bundle = bundle, bundle.one_side(side)
    if kind.modalities and bundle.modality not in kind.modalities:
        raise BadInput(f"--format {form}: is made of encoders of {' or '.join(map(plural, kind.modalities))} alone")
    say = say or (lambda line: None)
    say("items …")
    sample, others, held_out = _samples(bundle, data, kind.calibrated, seed, columns)
    folder = Path(out) if out is not None else whole.path / "exports" / (form if side is None else f"{form}-{side}")
    result: list[Parity] = []

    def fill(temporary: Path) -> None:
        say("graph …")
        _write(kind, form, bundle, side, answers, others, temporary)
        say("comparing with the encoder …")
        usual = min(kind.floor, ROUNDED) if bundle.modality == "image" else kind.floor
        least = usual if floor is None else floor
        exported = load_export(temporary, key=())
        parity = compared(exported, sample, kind.judged, least, answers)
        if not parity.holds:
            raise GateRefused(f"{folder}: {form} refused: {parity.said}; choose another form, or say --floor")
        said = {"data": _described(data), "held_out": held_out, "hardware": describe()}
        write_json(temporary / PARITY, parity.to_dict() | said)
        write_bytes(temporary / SAMPLE, sample_of(exported, sample))
        result.append(parity)

    replace_folder(folder, fill, DESCRIPTION)
    return Export(folder, form, sum(file.stat().st_size for file in folder.iterdir()), result[0])


def _answering(bundle: bundles.Bundle, name: str, side: str | None) -> Head:
    """Return a head of the side that is exported."""
    head = heads.read(bundle, name)
    if head.about["side"] != side:
        raise BadInput(f"{head.folder}: was fitted on the side {head.about['side']}; export that one (--side)")
    return head


def _write(
    kind: Form,
    form: str,
    bundle: bundles.Bundle,
    side: str | None,
    head: Head | None,
    sample: Sample,
    folder: Path,
) -> None:
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

    ready = INTAKES[bundle.modality](folder, about)
    written = kind.write(Source(bundle, intake, graph_of(bundle.encoder, intake), sample, ready, head), folder)
    about |= {"graph": written.graph, "made": dict(written.about)}
    about["input"] = {"name": intake.name, "dtype": str(intake.example.dtype).removeprefix("torch.")}
    about["input"]["shape"] = _shape(intake)
    about["outputs"] = {"embeddings": "float32, rows of length 1", "features": "float32, as the network gives them"}
    if head is not None:
        about["head"] = {"name": head.name, "id": head.about["id"]}
        about["head"] |= {"classes": list(head.classes), "threshold": head.threshold}
        about["outputs"] |= {"probabilities": "float32, of the classes", "novelty": "float32"}
    about["made_with"] = versions("fastness", "torch", "onnx", "onnxscript", "onnxruntime", "openvino")
    about["files"] = {file.name: sha256_file(file) for file in sorted(folder.iterdir())}
    write_json(folder / DESCRIPTION, about)


def _shape(intake: Intake) -> list[int | str]:
    names = {0: "batch", **intake.any_size, **({2: "height", 3: "width"} if intake.before else {})}
    return [names.get(place, size) for place, size in enumerate(intake.example.shape)]


def _samples(
    bundle: bundles.Bundle, data: Any, calibrated: int, seed: int, columns: dict[str, str | None]
) -> tuple[Sample, Sample, bool]:
    """Return items to compare by, up to as many to calibrate by as are wanted, and whether those are others."""
    dataset = bundle.open(data, **columns)
    order = numpy_generator(seed, "parity").permutation(len(dataset))
    apart = min(calibrated, max(len(order) - _COMPARED, len(order) // 2 if len(order) >= _FEW else 0))
    others, compared = order[:apart], order[apart : apart + _COMPARED]
    others = others if apart else compared[:calibrated]
    draw = KINDS.get(bundle.modality).sample
    first = draw(bundle, dataset.select(np.sort(compared)))
    second = draw(bundle, dataset.select(np.sort(others))) if calibrated else first.select(range(0))
    if not len(first) or (calibrated and not len(second)):
        raise BadInput(f"{dataset.whole.source}: no usable item to compare by; give others")
    return first, second, bool(apart) or not calibrated


def _described(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else type(data).__name__
