"""Signatures: whatever is changed, added, left out or led elsewhere is refused in one line that names it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastness as fs
from fastness.core.files import sha256_file
from fastness.delivery.signing import PASSPHRASE, new_key, sign, verify
from fastness_runtime import Unusable, signature
from fastness_runtime import load as load_export


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; the public one lies beside it."""
    path = tmp_path_factory.mktemp("keys") / "owner"
    assert new_key(path) == Path(f"{path}.pub") and path.stat().st_mode & 0o777 == 0o600
    return path


@pytest.fixture(scope="module")
def signed(bundle: Path, labelled: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an export, signed; not to be changed."""
    folder = shutil.copytree(bundle, tmp_path_factory.mktemp("signed") / "bundle")
    fs.export(folder, labelled)
    found = sign(folder, key)
    assert found.id == fs.load(folder).id and found.files > 8
    return folder


@pytest.fixture
def copy(signed: Path, tmp_path: Path) -> Path:
    """A copy of the signed bundle, to be changed."""
    return shutil.copytree(signed, tmp_path / "bundle")


def refused(folder: Path, key: Path, named: str = "") -> str:
    """Assert that neither ``verify`` nor ``load`` takes a folder; return what is said."""
    with pytest.raises(fs.GateRefused) as said:
        verify(folder, f"{key}.pub")
    with pytest.raises(fs.GateRefused):
        fs.load(folder, key=f"{key}.pub")
    assert "\n" not in str(said.value) and str(folder) in str(said.value) and named in str(said.value)
    return str(said.value)


def test_what_is_signed_is_verified(signed: Path, key: Path) -> None:
    found = verify(signed, f"{key}.pub")
    assert found == verify(signed, f"{key}.pub") and len(found.key) == 64
    names = [name for name, _, _ in signature.files_of(signed)]
    assert found.files == len(names) and "exports/onnx/signature.json" in names
    assert fs.load(signed, key=f"{key}.pub").id == found.id
    export = signed / "exports" / "onnx"
    assert load_export(export, key=f"{key}.pub").about["bundle"] == found.id
    assert verify(export, f"{key}.pub").id == found.id


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_byte_anywhere_is_refused(copy: Path, key: Path, data: st.DataObject) -> None:
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        refused(copy, key, path.name)
    finally:
        path.write_bytes(before)
    verify(copy, f"{key}.pub")


def test_what_is_added_missing_renamed_or_elsewhere_is_refused(copy: Path, key: Path, tmp_path: Path) -> None:
    extra = copy / "exports" / "onnx" / "extra.onnx"
    extra.write_bytes(b"")
    assert "was added after signing" in refused(copy, key, "extra.onnx")
    extra.unlink()
    recipe = copy / "recipe.json"
    recipe.rename(tmp_path / "recipe.json")
    assert "is missing" in refused(copy, key, "recipe.json")
    recipe.symlink_to(tmp_path / "recipe.json")
    assert "is a link" in refused(copy, key, "recipe.json")
    recipe.unlink()
    (tmp_path / "recipe.json").rename(recipe)
    (copy / "outside").symlink_to(tmp_path)
    assert "is a link" in refused(copy, key, "outside")
    with pytest.raises(fs.BadInput, match="is a link"):
        sign(copy, key)
    (copy / "outside").unlink()
    (copy / "Recipe.json").write_bytes(recipe.read_bytes())
    assert "means something else elsewhere" in refused(copy, key, "recipe.json")
    (copy / "Recipe.json").unlink()
    (copy / "signature.json").unlink()
    assert "is not signed" in refused(copy, key)


def rewritten(folder: Path, key: Path, **changes: object) -> None:
    """Sign a list that says something else than what lies there."""
    written = json.loads((folder / "signature.json").read_text())
    told = {**written["signed"], **changes}
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    (folder / "signature.json").write_bytes(
        signature.document(told, written["key"], private.sign(signature.message(told)))
    )


@pytest.mark.parametrize(
    "name", ["../recipe.json", "/etc/passwd", "a/../recipe.json", "a\\b", "./recipe.json", "a\nb", "c:x"]
)
def test_names_that_lead_out_are_refused_even_if_signed(copy: Path, key: Path, name: str) -> None:
    files = json.loads((copy / "signature.json").read_text())["signed"]["files"]
    rewritten(copy, key, files=[*files, {**files[0], "path": name}])
    assert "lists files as no signature does" in refused(copy, key)


@pytest.mark.parametrize("files", [None, [1], [{"path": "a"}], "abc", [{"path": "a", "bytes": "x", "sha256": ""}]])
def test_lists_that_are_none_are_refused(copy: Path, key: Path, files: object) -> None:
    rewritten(copy, key, files=files)
    assert "lists files as no signature does" in refused(copy, key)


def test_a_stranger_s_signature_and_a_forged_one_are_refused(copy: Path, key: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "stranger")
    sign(copy, tmp_path / "stranger")
    assert "not among those you trust" in refused(copy, key)
    assert verify(copy, f"{key}.pub", tmp_path / "stranger.pub").key != verify(copy, tmp_path / "stranger.pub").id
    written = json.loads((copy / "signature.json").read_text())
    owner = serialization.load_pem_public_key(Path(f"{key}.pub").read_bytes()).public_bytes_raw()
    forged = signature.document(written["signed"], signature.fingerprint(owner), b"\0" * 64)
    (copy / "signature.json").write_bytes(forged)
    assert "is not of what it lists" in refused(copy, key)


def test_sizes_are_looked_at_before_anything_is_read(copy: Path, key: Path) -> None:
    """A file that claims a hundred gigabytes (of holes) is refused at once; so is such a header of unsigned weights."""
    weights = next(copy.glob("*.safetensors"))
    with weights.open("r+b") as handle:
        handle.truncate(100 << 30)
    refused(copy, key, weights.name)
    with (copy / "bundle.json").open("r+b") as handle:
        handle.truncate(100 << 30)
    with pytest.raises(fs.BadInput, match=r"bundle.json: is larger than any bundle's"):
        fs.load(copy)


def test_a_header_of_a_hundred_gigabytes_is_refused_unsigned_too(bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    weights = next(folder.glob("*.safetensors"))
    content = weights.read_bytes()
    weights.write_bytes(struct.pack("<Q", 100 << 30) + content[8:])
    described = json.loads((folder / "bundle.json").read_text())
    described["core"][weights.name] = sha256_file(weights)
    from fastness.bundle.whole import identity_of

    described["id"] = identity_of(described["core"])
    (folder / "bundle.json").write_text(json.dumps(described))
    with pytest.raises(fs.BadInput, match="is no readable bundle") as said:
        fs.load(folder)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "../outside.onnx"},
        {"graph": "elsewhere.onnx"},
        {"files": {}},
        {"files": {"..": "0" * 64}},
        {"files": {"a\0b": "0" * 64}},
        {"files": {"../outside.onnx": "0" * 64}},
    ],
)
def test_an_export_is_read_from_nothing_but_what_it_lists(copy: Path, change: dict[str, object]) -> None:
    folder = copy / "exports" / "onnx"
    shutil.copy(folder / "encoder.onnx", folder.parent / "outside.onnx")
    shutil.copy(folder / "encoder.onnx", folder / "elsewhere.onnx")
    about = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(about | change))
    with pytest.raises(Unusable, match="its list of files is not an export's") as said:
        load_export(folder, key=())
    assert "\n" not in str(said.value)


def test_numbers_beyond_all_measure_are_one_line(copy: Path) -> None:
    path = copy / "exports" / "onnx" / "export.json"
    path.write_text('{"format": ' + "9" * 5000 + "}")
    with pytest.raises(Unusable, match="describes no export") as said:
        load_export(path.parent, key=())
    assert "\n" not in str(said.value)


def test_what_is_no_plain_file_is_not_waited_for(copy: Path, key: Path) -> None:
    """A pipe would let whoever opens it wait for ever."""
    (copy / "recipe.json").unlink()
    os.mkfifo(copy / "recipe.json")
    assert "is a link or no plain file" in refused(copy, key, "recipe.json")
    with pytest.raises(fs.BadInput, match=r"recipe\.json is missing"):
        fs.load(copy)


def test_a_name_over_two_lines_is_told_in_one(copy: Path, key: Path) -> None:
    (copy / "x\ny").symlink_to(copy / "recipe.json")
    assert "is a link" in refused(copy, key)


def test_a_key_that_is_no_hash_is_not_shown(copy: Path, key: Path) -> None:
    written = json.loads((copy / "signature.json").read_text())
    (copy / "signature.json").write_bytes(signature.document(written["signed"], "\x1b[2Jtrust me", b"\0" * 64))
    assert "is no signature of this version" in refused(copy, key)


def test_a_changed_export_is_refused_by_the_runtime_too(copy: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even its description, which no hash of its own covers."""
    described = copy / "exports" / "onnx" / "export.json"
    described.write_text(described.read_text().replace('"form": "onnx"', '"form": "onnX"'))
    assert load_export(described.parent).about["form"] == "onnX"
    with pytest.raises(Unusable, match=r"export.json: was changed after signing"):
        load_export(described.parent, key=f"{key}.pub")
    monkeypatch.setenv(signature.TRUSTED, f"{key}.pub")
    with pytest.raises(Unusable, match=r"export.json: was changed after signing"):
        load_export(described.parent)
    assert load_export(described.parent, key=()).about["form"] == "onnX"


def test_the_environment_s_keys_hold_for_every_bundle(
    signed: Path, bundle: Path, labelled: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_key(tmp_path / "other")
    monkeypatch.setenv(signature.TRUSTED, f"{tmp_path / 'other.pub'}:{key}.pub")
    assert fs.load(signed).id == fs.load(bundle, key=()).id
    with pytest.raises(fs.GateRefused, match="is not signed"):
        fs.load(bundle)
    made = fs.export(fs.load(bundle, key=()), labelled, out=tmp_path / "export")  # one makes exports before one signs
    with pytest.raises(Unusable, match="is not signed"):
        load_export(made.folder)
    sign(made.folder, key)
    assert load_export(made.folder).dim


def test_what_is_attached_later_is_signed_again(copy: Path, key: Path, labelled: Path) -> None:
    fs.export(copy, labelled, "onnx-fp16")
    assert "sign again" in refused(copy, key)
    sign(copy, key)
    assert verify(copy, f"{key}.pub").files > 10


def test_what_is_broken_is_not_signed(copy: Path, key: Path, tmp_path: Path) -> None:
    (copy / "recipe.json").write_text("{}")
    with pytest.raises(fs.BadInput, match="was changed after the bundle was made"):
        sign(copy, key)
    with pytest.raises(fs.BadInput, match="no bundle here"):
        sign(tmp_path, key)
    (copy / "exports" / "onnx" / "encoder.onnx").write_bytes(b"")
    with pytest.raises(fs.BadInput, match="was changed after the export was made"):
        sign(copy / "exports" / "onnx", key)


def test_keys_are_locked_and_wrong_ones_are_named(
    signed: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copytree(signed, tmp_path / "bundle")
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    new_key(tmp_path / "locked")
    assert sign(copied, tmp_path / "locked").id
    monkeypatch.delenv(PASSPHRASE)
    for wrong in (tmp_path / "locked", tmp_path / "nothing", Path(f"{key}.pub")):
        with pytest.raises(fs.BadInput, match="no private key can be read"):
            sign(copied, wrong)
    with pytest.raises(fs.BadInput, match="is there already"):
        new_key(tmp_path / "locked")
    for place in (key, tmp_path / "nothing.pub"):
        with pytest.raises(fs.BadInput, match="no public key here"):
            verify(copied, place)
        with pytest.raises(fs.BadInput, match="no public key here"):
            fs.load(copied, key=place)
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = curve.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "curve.pub").write_bytes(pem)
    with pytest.raises(fs.BadInput, match="is no Ed25519 key"):
        verify(copied, tmp_path / "curve.pub")
    monkeypatch.delenv(signature.TRUSTED, raising=False)
    with pytest.raises(fs.BadInput, match="no key to verify by"):
        verify(copied)


def test_the_openssf_s_own_program_takes_the_signature(copy: Path, key: Path, tmp_path: Path) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    info, pkcs8 = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PrivateFormat.PKCS8
    pem = serialization.Encoding.PEM
    (tmp_path / "ec").write_bytes(curve.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    (tmp_path / "ec.pub").write_bytes(curve.public_key().public_bytes(pem, info))
    with pytest.raises(fs.BadInput, match="give a P-256 key"):
        sign(copy, key, model_signing=key)
    sign(copy, key, model_signing=tmp_path / "ec")

    def theirs() -> int:
        command = [sys.executable, "-m", "model_signing", "verify", "key", copy, "--signature", f"{copy}.model.sig"]
        return subprocess.run([*map(str, command), "--public_key", tmp_path / "ec.pub"], capture_output=True).returncode

    assert theirs() == 0
    verify(copy, f"{key}.pub")
    (copy / "recipe.json").write_bytes((copy / "recipe.json").read_bytes() + b" ")
    assert theirs() != 0


def test_the_verbs(bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "bundle")

    def said(*words: object) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-m", "fastness", *map(str, words)], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert said("key", tmp_path / "mine")[0] == 0
    assert said("sign", folder, "--key", tmp_path / "mine")[0] == 0
    code, text = said("verify", folder, "--key", tmp_path / "mine.pub", "--json")
    assert code == 0 and json.loads(text)["id"] == fs.load(folder).id
    (folder / "extra").write_text("")
    code, text = said("verify", folder, "--key", tmp_path / "mine.pub")
    assert code == 3 and "extra: was added after signing" in text and text.count("\n") == 1
    assert said("verify", folder)[0] == 2
