"""An existing encoder becomes a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fastness.bundle.bundle import Bundle, load, write
from fastness.core.errors import BadInput
from fastness.core.files import sha256_file
from fastness.data.manifest import Manifest
from fastness.encoders import Encoder, build
from fastness.encoders.backbones import read_weights, timm_spec
from fastness.encoders.image import ImageSpec


def adopt(
    name: str,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    size: int | None = None,
    width: int | None = None,
    pretrained: bool = False,
) -> Bundle:
    """Make a bundle of an encoder that was trained elsewhere.

    Args:
        name: ``timm:NAME``, one of our backbones (``resnet18`` …) whose weights are given, or a folder that
            sentence-transformers or transformers saved.
        out: folder of the new bundle.
        weights: ``.safetensors`` or a torch file with a state dict; prefixes such as ``module.`` or
            ``backbone.`` and classifier layers are put aside.
        size: side of the input in pixels; default: what timm states for it, else 224.
        width: of a ResNet, if not 64.
        pretrained: let timm download the weights.

    Raises:
        BadInput: unknown name, or the weights do not fit; names what is missing.
    """
    out, weights = Path(out), None if weights is None else Path(weights)
    if Path(name).is_dir():
        return _adopt_folder(Path(name), out, size)
    if name.startswith("timm:"):
        spec = timm_spec(name.removeprefix("timm:"), size)
    else:
        spec = ImageSpec(
            name, size or 224, {} if width is None else {"width": width}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        )
    encoder = build(spec)
    if weights is not None:
        _take(encoder, weights)
    elif pretrained and name.startswith("timm:"):
        _download(encoder, name.removeprefix("timm:"))
    else:
        raise BadInput(f"{name}: give its weights with --weights FILE, or --pretrained to let timm download them")
    nothing = Manifest([], np.zeros((0, 32), np.uint8))
    write(out, encoder, _origin(name, weights), nothing)
    return load(out, key=())


def _adopt_folder(folder: Path, out: Path, size: int | None) -> Bundle:
    """Make a bundle of a folder with a transformer, its tokenizer and its pooling; none of its code is run."""
    from fastness.encoders.sentence_transformers import read_folder

    spec, weights = read_folder(folder)
    encoder = build(replace(spec, size=size or spec.size))
    wanted = encoder.weights()
    weights = {k.removeprefix("bert.") if k not in wanted else k: v for k, v in weights.items()}
    missing = [k for k in wanted if k not in weights and "pooler" not in k]
    if missing:
        raise BadInput(f"{folder}: its weights lack {len(missing)} of {len(wanted)} tensors, e.g. {missing[0]}")
    encoder.load_weights({k: weights.get(k, t) for k, t in wanted.items()})
    try:
        Bundle(folder, "", encoder, {}, {}).embed(["a few words"])
    except Exception as error:  # noqa: BLE001 - a tokenizer's or a network's own kinds; all mean the same here
        raise BadInput(f"{folder}: cannot embed a text ({' '.join(str(error).split())[:150]})") from None
    origin = {"method": "adopted", "encoder": spec.name, "weights": f"folder {folder.name}"}
    write(out, encoder, origin, Manifest([], np.zeros((0, 32), np.uint8)))
    return load(out, key=())


def _origin(name: str, weights: Path | None) -> dict[str, str]:
    """Return where an encoder came from; of a file its hash, so that the id does not depend on where it lay."""
    digest = "timm's own" if weights is None else f"sha256 {sha256_file(weights)}"
    return {"method": "adopted", "encoder": name, "weights": digest}


def from_timm(name: str) -> Bundle:
    """Return timm's pretrained encoder as an unsaved bundle, for ``--init timm:NAME``; downloads its weights."""
    spec = timm_spec(name.removeprefix("timm:"))
    encoder = build(spec)
    _download(encoder, name.removeprefix("timm:"))
    return Bundle(Path(name), "", encoder, {}, {})


def _download(encoder: Encoder, name: str) -> None:
    import timm

    try:
        pretrained = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # noqa: BLE001 - hub clients raise many kinds; all mean the same here
        said = (str(error).splitlines() or [""])[0][:150]
        raise BadInput(
            f"timm:{name}: weights cannot be downloaded ({type(error).__name__}: {said}); give --weights FILE"
        ) from None
    encoder.backbone.load_state_dict(pretrained.state_dict())


def _take(encoder: Encoder, path: Path) -> None:
    """Load weights into the backbone, whatever prefix they were saved under."""
    given = read_weights(path)
    wanted = encoder.backbone.state_dict()
    for prefix in ("", "module.", "backbone.", "encoder.", "model.", "backbone.backbone."):
        stripped = {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}
        if set(wanted) <= set(stripped):
            wrong = [k for k in wanted if stripped[k].shape != wanted[k].shape]
            if wrong:
                raise BadInput(
                    f"{path}: {wrong[0]} has shape {tuple(stripped[wrong[0]].shape)}, the encoder wants "
                    f"{tuple(wanted[wrong[0]].shape)}; check --width and --size"
                )
            encoder.backbone.load_state_dict({k: stripped[k] for k in wanted})
            return
    missing = sorted(set(wanted) - set(given))
    raise BadInput(f"{path}: lacks {len(missing)} of the encoder's {len(wanted)} tensors, e.g. {missing[0]}")
