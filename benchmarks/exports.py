"""Is what was exported what was trained? Every kind of encoder in every form, on 1,000 real items.

Cosines to torch's vectors come from the parity of the export itself: photographs of clothes cut to mixed sizes,
questions of Banking77, Telco's customers, emoji and their words. Quality is measured by the same checks for torch and
for each form, through ``fastness_runtime``: a vote of neighbours on what was held out, and MiniLM's rank correlation
on STS-B. Encoders are trained for some minutes; what is compared is each with itself.

Resumable: each form of each encoder leaves a file in ``.bench/exports``.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import emoji
import fastness as fs
import sts
from fastness.core.files import write_bytes, write_json
from fastness.core.seeds import numpy_generator
from fastness.delivery.forms import FORMS

FOLDER = common.WORK / "exports"
CLOTHES, TEXT = common.DATA / "clothing" / "clothing.zip", common.DATA / "text"
FLOORS = {"onnx": 0.99999, "openvino": 0.99999, "onnx-fp16": 0.999, "onnx-bf16": 0.999}
INT8 = 0.99


@dataclass(frozen=True)
class Case:
    """An encoder and what it is measured on.

    Attributes:
        bundle: makes it, or finds it.
        data: real items to compare by.
        columns: of the data.
        side: which of several.
        labels: column of the classes that neighbours vote for; ``None`` where there is none.
        similarity: whether it is measured on STS-B too.
    """

    bundle: Callable[[int], Path]
    data: Callable[[], Path]
    columns: dict[str, str] = field(default_factory=dict)
    side: str | None = None
    labels: str | None = "label"
    similarity: bool = False


def photographs() -> Path:
    """Return a folder of photographs of clothes, cut to mixed sizes; made on first use."""
    from PIL import Image

    folder, generator = FOLDER / "photographs", numpy_generator(0, "cuts")
    if not (folder / "ready").exists():
        with zipfile.ZipFile(CLOTHES) as archive:
            for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
                height, width = generator.integers(40, 97, 2)
                cut = Image.open(io.BytesIO(archive.read(name))).convert("RGB").crop((0, 0, int(width), int(height)))
                written = io.BytesIO()
                cut.save(written, "PNG")
                write_bytes((folder / name).with_suffix(".png"), written.getvalue())
        (folder / "ready").touch()
    return folder


def trained(name: str, data: Callable[[], Path], **recipe: Any) -> Callable[[int], Path]:
    """Return what trains a bundle for so many steps, or finds it."""

    def made(steps: int) -> Path:
        place = FOLDER / f"{name}-{steps}"
        if not (place / "bundle" / "bundle.json").exists():
            fs.train(data(), out=place, steps=steps, quiet=True, **recipe)
        return place / "bundle"

    return made


def telco() -> Path:
    """Return the file of Telco's customers."""
    return common.DATA / "table" / "telco_churn.csv"


def banking() -> Path:
    """Return the file of Banking77's test questions."""
    return TEXT / "banking77" / "test.csv"


def both(steps: int) -> Path:
    """Return an encoder of emoji and of their words; of it cosines alone are measured, so it learns for less time."""
    return trained("emoji", emoji.prepared, columns=emoji.COLUMNS)(steps // 6)


CASES = {
    "ResNet-18": Case(trained("resnet", photographs, encoder="resnet18", width=16, size=32), photographs),
    "ViT": Case(trained("vit", photographs, encoder="vit-tiny", size=32), photographs),
    "MiniLM": Case(lambda steps: common.minilm_bundle(), banking, {"text": "text"}, labels="category", similarity=True),
    "table": Case(trained("table", telco, columns={"label": "Churn"}), telco, labels="Churn"),
    "emoji": Case(both, emoji.prepared, {"image": "image"}, "image", labels=None),
    "emoji's words": Case(both, emoji.prepared, {"text": "words"}, "text", labels=None),
}


def quality(bundle: Any, case: Case) -> dict[str, float]:
    """Return how good an encoder is, or one of its exports, in percent."""
    found = {}
    if case.labels is not None:
        columns = {**case.columns, **({} if case.labels == "label" else {"label": case.labels})}
        found["knn"] = round(100 * fs.evaluate(bundle, case.data(), checks=["knn"], **columns)["knn.accuracy"], 2)
    if case.similarity:
        found["sts"] = round(100 * sts.spearman(bundle, "test")["value"], 2)
    return found


def measured(name: str, form: str, steps: int) -> dict[str, Any]:
    """Return the row of an encoder in a form; ``torch`` is the encoder itself."""
    case = CASES[name]
    bundle = fs.load(case.bundle(steps))
    code = common.source_hash("delivery", "bundle")
    kept = FOLDER / f"row-{name.replace(' ', '-')}-{form}-{bundle.id[:8]}-{code}.json"
    if not kept.exists():
        row: dict[str, Any] = {"encoder": name, "form": form}
        if form == "torch":
            row |= quality(bundle, case)
        else:
            columns = case.columns if case.side else {**case.columns, "label": "none"}
            out = bundle.path / "exports" / f"{case.side or 'whole'}-{form}"
            made = fs.export(bundle, case.data(), form, side=case.side, out=out, floor=-1.0, **columns)
            parity = made.parity
            row |= {"items": parity.items, "least_cosine": round(parity.least, 7), "alone": parity.alone}
            row |= {"mb": round(made.bytes / 1e6, 2), **quality(made.folder, case)}
        write_json(kept, row)
    return dict(json.loads(kept.read_text()))


def forms(name: str) -> list[str]:
    """Return the forms that an encoder has and that are held to its cosines."""
    kind = {"MiniLM": "text", "table": "table", "emoji's words": "text"}.get(name, "image")
    return [f for f in FORMS if f != "static" and kind in (FORMS.get(f).modalities or [kind])]


def asks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the asks of each row, against the row of its torch."""
    found, whole = [], {row["encoder"]: row for row in rows if row["form"] == "torch"}
    for row in (row for row in rows if row["form"] != "torch"):
        called, floor = f"{row['encoder']}, {row['form']}", FLOORS.get(row["form"], INT8)
        least, alone = row["least_cosine"], row["alone"]
        said = f"{least}, alone {alone:.1e}"
        found.append(common.ask(called, f"cosine >= {floor}", said, least >= floor and alone < 1e-5))
        if "int8" in row["form"]:
            for what in ("knn", "sts"):
                if what in row:
                    lost = whole[row["encoder"]][what] - row[what]
                    found.append(common.ask(f"{called}: {what}", "within 0.5 points", f"{-lost:+.2f}", lost <= 0.5))
    return found


def main() -> None:
    """Measure what is missing, and write the result file after each encoder."""
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in list(CASES)[:1] if quick else CASES:
        rows += [measured(name, form, 20 if quick else 300) for form in ("torch", *forms(name))]
        common.save("exports" + ("_quick" if quick else ""), rows, asks(rows))


if __name__ == "__main__":
    main()
