"""The bundle: an identity that its bytes decide, and embeddings that do not depend on how items are given."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import TensorDataset

import fastness as fs
from conftest import pictures, write_pictures, zip_folder
from fastness import bundle as bundles
from fastness.bundle.whole import CORE, identity_of
from fastness.core.errors import BadInput
from fastness.core.files import sha256_file
from fastness.data.manifest import Manifest
from fastness.encoders import Encoder, build
from fastness.encoders.image import ImageSpec

PIXELS = pictures(9, size=20)
SPEC = ImageSpec("resnet18", 16, {"width": 4})
MANIFEST = Manifest(["a", "b"], np.zeros((2, 32), np.uint8), np.array([0, 1]), ("x", "y"))


def _encoder(seed: int = 0, spec: ImageSpec = SPEC) -> Encoder:
    torch.manual_seed(seed)
    return build(spec)


@pytest.fixture(scope="module")
def loaded(bundle: Path) -> bundles.Bundle:
    return fs.load(bundle)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures", PIXELS)
    return tmp_path / "pictures"


FILES = ("weights.safetensors", *CORE)

# Identity


def test_what_is_written_is_loaded(tmp_path: Path) -> None:
    encoder, recipe = _encoder(), {"method": "simclr", "lr": 0.1}
    identity = bundles.write(tmp_path / "bundle", encoder, recipe, MANIFEST)
    found = fs.load(tmp_path / "bundle")

    assert found.id == identity and found.recipe == recipe and found.data == MANIFEST.summary()
    assert found.encoder.spec == SPEC and found.dim == encoder.dim and not found.encoder.training
    assert found.item_hashes == {bytes(32).hex()}
    assert all(torch.equal(found.encoder.state_dict()[name], value) for name, value in encoder.state_dict().items())


def test_the_same_run_has_the_same_id(run: Path, labelled: Path, tmp_path: Path) -> None:
    again = fs.train(labelled, steps=2, width=4, size=16, batch_size=8, out=tmp_path, quiet=True)

    assert again.id == fs.load(run).id
    assert all((again.bundle / name).read_bytes() == (run / "bundle" / name).read_bytes() for name in FILES)


def test_each_part_of_the_core_decides_the_id(tmp_path: Path) -> None:
    hashes = np.array(MANIFEST.hashes)
    hashes[1, 31] = 1
    changes = [
        (_encoder(), {}, MANIFEST),
        (_encoder(1), {}, MANIFEST),
        (_encoder(spec=dataclasses.replace(SPEC, mean=(0.5, 0.5, 0.501))), {}, MANIFEST),
        (_encoder(), {"seed": 1}, MANIFEST),
        (_encoder(), {}, dataclasses.replace(MANIFEST, hashes=hashes)),
        (_encoder(), {}, dataclasses.replace(MANIFEST, names=["a", "c"])),
    ]
    ids = [bundles.write(tmp_path / str(i), *change) for i, change in enumerate(changes)]

    assert len(set(ids)) == len(ids)
    assert bundles.write(tmp_path / "again", *changes[0]) == ids[0]


def test_attachments_do_not_touch_the_id(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "copy" / "evidence" / "x").mkdir(parents=True)
    (tmp_path / "copy" / "card.md").write_text("more")

    assert fs.load(tmp_path / "copy").id == fs.load(bundle).id


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0, 0.5, -1])
def test_one_flipped_bit_is_noticed(bundle: Path, tmp_path: Path, name: str, where: float) -> None:
    path = shutil.copytree(bundle, tmp_path / "copy") / name
    raw = bytearray(path.read_bytes())
    raw[int(where * len(raw)) if where >= 0 else -1] ^= 1
    path.write_bytes(raw)

    with pytest.raises(BadInput, match=rf"{name}: was changed"):
        fs.load(tmp_path / "copy")


@pytest.mark.parametrize("name", [*FILES, "bundle.json"])
def test_a_missing_file_is_named(bundle: Path, tmp_path: Path, name: str) -> None:
    (shutil.copytree(bundle, tmp_path / "copy") / name).unlink()

    with pytest.raises(BadInput, match=rf"copy: no bundle here \({name} is missing\); train or adopt one"):
        fs.load(tmp_path / "copy")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99, "core": {}}', '{"format": 2, "core": 3}', "\xff"])
def test_a_strange_bundle_json_is_refused(bundle: Path, tmp_path: Path, text: str) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "bundle.json").write_text(text, encoding="latin-1")

    with pytest.raises(BadInput, match="copy"):
        fs.load(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_bundle_that_leaves_a_file_out_of_its_list_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    """Even if its id fits: the file could be any other."""
    copy = shutil.copytree(bundle, tmp_path / "copy")
    described = json.loads((copy / "bundle.json").read_text())
    del described["core"][name]
    described["id"] = identity_of(described["core"])
    (copy / "bundle.json").write_text(json.dumps(described))

    with pytest.raises(BadInput, match="its list of files is not a bundle's"):
        fs.load(copy)


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "/etc/hostname", "..\\secret", "..", ".", "", "evidence", "a\0b"]
)
def test_a_bundle_that_lists_what_is_no_file_of_it_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (tmp_path / "secret").write_text("secret")
    (copy / "evidence").mkdir()
    described = json.loads((copy / "bundle.json").read_text())
    described["core"][name] = sha256_file(tmp_path / "secret")
    described["id"] = identity_of(described["core"])
    (copy / "bundle.json").write_text(json.dumps(described))

    with pytest.raises(BadInput, match="copy"):
        fs.load(copy)


def test_a_module_of_ones_own_must_be_given_again(tmp_path: Path) -> None:
    def module() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))

    encoder = build(ImageSpec("module", 8), module())
    bundles.write(tmp_path / "bundle", encoder, {}, MANIFEST)

    found = fs.load(tmp_path / "bundle", encoder=module())
    assert np.array_equal(found.embed(PIXELS), bundles.Bundle(tmp_path, "", encoder, {}, {}).embed(PIXELS))
    with pytest.raises(BadInput, match=r"fs\.load\(path, encoder=module\)"):
        fs.load(tmp_path / "bundle")
    with pytest.raises(BadInput, match="weights do not fit"):
        fs.load(tmp_path / "bundle", encoder=nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6)))


# Embeddings


def test_rows_are_items_in_order_and_normalised(loaded: bundles.Bundle) -> None:
    z = loaded.embed(PIXELS)

    assert z.shape == (9, loaded.dim) and z.dtype == np.float32
    assert np.allclose(np.linalg.norm(z, axis=1), 1, atol=1e-5)
    assert np.allclose(loaded.embed(PIXELS[::-1]), z[::-1], atol=1e-5)
    assert np.linalg.matrix_rank(z) > 1
    raw = loaded.embed(PIXELS, normalize=False)
    assert np.allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), z, atol=1e-5)


@pytest.mark.parametrize(
    "form",
    [
        lambda folder: sorted(folder.iterdir()),
        lambda folder: [str(path) for path in sorted(folder.iterdir())],
        lambda folder: [Image.open(path) for path in sorted(folder.iterdir())],
        lambda folder: list(PIXELS),
        lambda folder: np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)),
        lambda folder: torch.from_numpy(PIXELS),
        lambda folder: TensorDataset(torch.from_numpy(PIXELS), torch.arange(9)),
        lambda folder: folder,
        lambda folder: str(folder),
        lambda folder: fs.open_data(folder),
        lambda folder: zip_folder(folder, folder.with_suffix(".zip")) or folder.with_suffix(".zip"),
    ],
)
def test_the_form_of_the_items_does_not_matter(
    loaded: bundles.Bundle, folder: Path, form: Callable[[Path], object]
) -> None:
    assert np.allclose(loaded.embed(form(folder)), loaded.embed(PIXELS), atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4, 100])
def test_the_batch_does_not_matter(loaded: bundles.Bundle, folder: Path, size: int) -> None:
    alone = np.concatenate([loaded.embed(PIXELS[i : i + 1]) for i in range(9)])

    assert np.allclose(loaded.embed(PIXELS, batch_size=size), alone, atol=1e-5)
    assert np.allclose(loaded.embed(folder, batch_size=size), alone, atol=1e-5)


@pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 3, 8, 8), np.uint8), torch.zeros(0, 3, 8, 8)])
def test_no_items_give_no_rows(loaded: bundles.Bundle, nothing: object) -> None:
    assert loaded.embed(nothing).shape == (0, loaded.dim)


@pytest.mark.parametrize("bad", [b"", b"words", np.full((8, 8, 3), np.nan), np.zeros((2, 2, 2, 2))])
def test_a_damaged_item_of_a_list_is_named_by_its_index(loaded: bundles.Bundle, bad: object) -> None:
    with pytest.raises(BadInput, match=r"^item 1: .*; leave it out"):
        loaded.embed([PIXELS[0], bad, PIXELS[1]], batch_size=2)


def test_what_holds_no_items_is_refused(loaded: bundles.Bundle) -> None:
    with pytest.raises(BadInput, match="cannot be opened as data"):
        loaded.embed(array for array in PIXELS)


def test_a_damaged_file_of_a_folder_is_quarantined(loaded: bundles.Bundle, folder: Path) -> None:
    (folder / "03a.png").write_bytes(b"words")
    found = loaded.embed_dataset(fs.open_data(folder))

    assert found.ids == [f"{i:02}.png" for i in range(9)]
    assert [item.name for item in found.dataset.quarantine] == ["03a.png"]
    assert np.allclose(found.vectors, loaded.embed(PIXELS), atol=1e-5)


# Adopting


@pytest.mark.parametrize("kind", ["safetensors", "torch", "nested"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder."])
def test_adopted_weights_embed_as_before(tmp_path: Path, kind: str, prefix: str) -> None:
    encoder = _encoder(3, dataclasses.replace(SPEC, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    weights = {prefix + name: value.clone() for name, value in encoder.backbone.state_dict().items()}
    weights["fc.weight"] = torch.zeros(10, encoder.dim)
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"state_dict": weights} if kind == "nested" else weights, path)

    adopted = fs.adopt("resnet18", tmp_path / "out", weights=path, size=16, width=4)

    expected = bundles.Bundle(tmp_path, "", encoder, {}, {}).embed(PIXELS)
    assert np.allclose(fs.load(tmp_path / "out").embed(PIXELS), expected, atol=1e-5)
    assert adopted.id == fs.load(tmp_path / "out").id


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("ran"),))


def test_weights_that_do_not_fit_are_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = load_file(bundle / "weights.safetensors")
    save_file({"x": torch.zeros(1)}, "none.safetensors")
    Path("words.safetensors").write_text("words")
    Path("words.pt").write_text("words")
    save_file(dict(list(weights.items())[:-3]), "few.safetensors")
    torch.save([1, 2], "list.pt")
    torch.save({"a": Evil()}, "evil.pt")
    said = {"gone.pt": "no such weights file", "evil.pt": "more than tensors", "list.pt": "no state dict"}

    for name in ("none.safetensors", "words.safetensors", "words.pt", "few.safetensors", *said):
        with pytest.raises(BadInput, match=rf"{name}: .*{said.get(name, '')}"):
            fs.adopt("resnet18", "out", weights=Path(name), size=16, width=4)
    with pytest.raises(BadInput, match="check --width and --size"):
        fs.adopt("resnet18", "out", weights=bundle / "weights.safetensors", size=16, width=8)
    with pytest.raises(BadInput, match="--weights FILE"):
        fs.adopt("resnet18", "out")
    assert not Path("out").exists() and not Path("ran").exists()
