"""Which of a version's exports serves."""

from __future__ import annotations

import json
from pathlib import Path

from fastness.core.errors import BadInput
from fastness_runtime.encoder import DESCRIPTION, described

_PREFERRED = ("onnx", "onnx-fp16", "onnx-bf16", "openvino", "onnx-int8", "openvino-int8", "static")


def chosen(bundle: Path, form: str | None = None) -> dict[str | None, Path]:
    """Return the folders of the exports that serve, by side; of a version without sides one, by ``None``.

    Without a form it is the one that a target has picked on this bundle (`fastness bench --target`), else the only one
    there is, else the one that is most like the encoder.

    Raises:
        BadInput: there is no such export.
    """
    there: dict[str, dict[str | None, Path]] = {}
    for path in sorted(bundle.glob(f"exports/*/{DESCRIPTION}")):
        about = described(path.parent)
        there.setdefault(str(about["form"]), {})[about["side"]] = path.parent
    if not there:
        raise BadInput(f"{bundle}: has no export to serve; make one (fastness export), then add it again")
    if form is not None and form not in there:
        raise BadInput(f"--form {form}: this version has {', '.join(there)}; export it so, then add it again")
    picked = form or _picked(bundle, set(there)) or min(there, key=_rank)
    return there[picked]


def _rank(form: str) -> tuple[int, str]:
    return _PREFERRED.index(form) if form in _PREFERRED else len(_PREFERRED), form


def _picked(bundle: Path, there: set[str]) -> str | None:
    """Return the form that the newest bench with a target has picked, if it is there."""
    found = []
    for path in bundle.glob("bench/*/bench.json"):
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            row = (said["choice"] or {}).get("row")
            found += [(str(said["time"]), str(row["form"]))] if row else []
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path}: is no bench's ({error}); bench it anew, or say --form") from None
    return next((form for _, form in sorted(found, reverse=True) if form in there), None)
