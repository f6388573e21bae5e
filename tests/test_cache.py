"""The decoded cache and atomic files: whole or not there, whoever is killed and however full the disk is."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import PIXELS, command_line, fork, pictures, png, write_parquet, write_pictures
from fastness.core import files
from fastness.core.errors import BadInput, Failure
from fastness.data import cache as caches
from fastness.data import open_data
from fastness.data.cache import decoded
from fastness.data.sources import parquet
from fastness.data.sources.folder import FolderPayloads


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that only this test uses; the folder of finished decoded sets in it."""
    monkeypatch.setenv("FASTNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures", pictures(20))
    return tmp_path / "pictures"


def _left(where: Path) -> list[str]:
    """Return what lies in a cache folder, locks aside."""
    return [path.name for path in where.iterdir() if path.suffix != ".lock"] if where.exists() else []


def _slowly(kept: Callable[..., object], pause: float) -> Callable[..., object]:
    def decode_square(*arguments: object) -> object:
        time.sleep(pause)
        return kept(*arguments)

    return decode_square


def _build(folder: str, out: str, pause: float) -> None:
    """Decode slowly, note how many items were decoded, and keep the pixels."""
    count: list[int] = []
    slow = _slowly(caches.decode_square, pause)
    caches.decode_square = lambda *arguments: count.append(1) or slow(*arguments)
    pixels = decoded(open_data(folder), 16).pixels
    np.save(out, pixels)
    Path(f"{out}.count").write_text(str(len(count)))


def test_two_builders_at_once_give_the_same_pixels_and_work_once(own_cache: Path, folder: Path, tmp_path: Path) -> None:
    outs = [str(tmp_path / f"{i}.npy") for i in range(2)]
    builders = [fork(_build, str(folder), out, 0.05) for out in outs]
    for builder in builders:
        builder.join()

    assert [builder.exitcode for builder in builders] == [0, 0]
    first, second = (np.load(out) for out in outs)
    assert np.array_equal(first, second) and first.any()
    assert sorted(int(Path(f"{out}.count").read_text()) for out in outs) == [0, 20]
    assert len(_left(own_cache)) == 1


@pytest.mark.parametrize("rows", [8, 50, 100, 128, 300])
def test_row_groups_are_hardly_read_again_however_many_readers_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Sixteen readers of a block each, as in decoding, go on in no order: no group goes while one of them reads it."""
    monkeypatch.setattr(parquet, "cores", lambda: 16)
    items = [str(i).encode() for i in range(4096)]
    pq.write_table(pa.table({"image": items}), tmp_path / "x.parquet", row_group_size=rows)
    payloads = open_data(tmp_path / "x.parquet").payloads
    payloads._recent.clear(), payloads._held.clear()
    loaded: list[int] = []
    load = parquet.ParquetPayloads._load
    monkeypatch.setattr(parquet.ParquetPayloads, "_load", lambda self, group: loaded.append(group) or load(self, group))
    blocks = [iter(range(start, start + 128)) for start in range(0, len(items), 128)]
    draw, readers, waiting = np.random.default_rng(0), blocks[:16], blocks[16:]
    while readers:
        reader = readers[draw.integers(len(readers))]
        row = next(reader, None)
        if row is not None:
            assert payloads.read(row) == items[row]
            continue
        readers.remove(reader)
        readers += [waiting.pop(0)] if waiting else []
    assert len(set(loaded)) == -(-len(items) // rows)
    assert len(loaded) <= 2 * len(set(loaded))  # once for each of two blocks that share it


def test_row_groups_are_kept_up_to_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "cores", lambda: 16)
    payloads = open_data(write_parquet(tmp_path / "x.parquet", range(8))).payloads
    assert [payloads.read(row) for row in range(8)] == [png(pixels) for pixels in PIXELS]
    assert len(payloads._recent) == len(payloads._held) == 4
    monkeypatch.setattr(parquet, "MAX_KEPT", 1)
    payloads._recent.clear(), payloads._held.clear()
    assert [payloads.read(row) for row in (0, 2, 0, 4, 1)] == [png(PIXELS[row]) for row in (0, 2, 0, 4, 1)]
    assert list(payloads._recent) == [2, 0]


def test_a_killed_builder_leaves_nothing_that_is_taken_for_a_cache(
    own_cache: Path, folder: Path, tmp_path: Path
) -> None:
    builder = fork(_build, str(folder), str(tmp_path / "never.npy"), 60)
    while not _left(own_cache):
        time.sleep(0.02)
        assert builder.is_alive()
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert [name for name in _left(own_cache) if not name.endswith(".partial")] == []

    images = decoded(open_data(folder), 16)

    expected = [caches.decode_square(path.read_bytes(), 16) for path in sorted(folder.iterdir())]
    assert np.array_equal(images.pixels, np.stack(expected))
    assert len(_left(own_cache)) == 1 and not _left(own_cache)[0].endswith(".partial")


def _with_little_room(words: list[str], folder: str, log: str) -> None:
    """Be the command line where no file may grow beyond 32 KiB, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 10, 32 << 10))
    command_line(words, folder, log)


def test_a_full_disk_ends_in_one_line_and_leaves_no_part(own_cache: Path, folder: Path, tmp_path: Path) -> None:
    words = ["train", str(folder), "--steps", "1", "--size", "64", "--out", str(tmp_path / "run")]
    process = fork(_with_little_room, words, str(tmp_path), str(tmp_path))
    process.join()

    said = (tmp_path / "err").read_text()
    assert process.exitcode == 1
    assert said.count("\n") == 1 and "no room left on the disk; free some space" in said
    assert _left(own_cache) == []
    assert not (tmp_path / "run" / "bundle").exists()


def test_pixels_are_mapped_and_read_only(own_cache: Path, folder: Path) -> None:
    images = decoded(open_data(folder), 16)

    assert isinstance(images.pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        images.pixels[0] = 0


def test_a_second_opening_decodes_nothing(own_cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decoded(open_data(folder), 16)
    monkeypatch.setattr(caches, "decode_square", None)

    assert np.array_equal(first.pixels, decoded(open_data(folder), 16).pixels)


def test_what_could_not_be_read_once_is_tried_again(
    own_cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_data(folder)
    (folder / "03.png").rename(folder / "away")
    first = decoded(dataset, 16).dataset
    assert len(first) == 19 and "cannot be read (No such file" in first.quarantine[0].reason

    (folder / "away").rename(folder / "03.png")
    assert len(decoded(dataset, 16)) == 20
    monkeypatch.setattr(caches, "decode_square", None)
    assert len(decoded(dataset, 16)) == 20


def test_each_size_has_its_own(own_cache: Path, folder: Path) -> None:
    shapes = [decoded(open_data(folder), size).pixels.shape for size in (8, 16)]

    assert shapes == [(20, 3, 8, 8), (20, 3, 16, 16)] and len(_left(own_cache)) == 2


def test_what_did_not_change_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, count = open_data(folder), []
    kept = FolderPayloads.read
    monkeypatch.setattr(FolderPayloads, "read", lambda self, row: count.append(row) or kept(self, row))

    assert open_data(folder).fingerprint == before.fingerprint and count == []
    write_pictures(folder / "more", pictures(1, seed=9))
    assert len(open_data(folder)) == 21 and len(count) == 1


def test_two_archives_of_one_name_size_and_time_are_not_confused(tmp_path: Path) -> None:
    packed = [tmp_path / place / "p.tar.gz" for place in "xy"]
    for seed, path in enumerate(packed):
        write_pictures(path.parent / "p", pictures(2, seed=seed), ".bmp")
        with tarfile.open(path, "w:gz", compresslevel=0) as archive:
            archive.add(path.parent / "p", "p")
        os.utime(path, (0, 0))

    assert open_data(packed[0]).fingerprint != open_data(packed[1]).fingerprint


class Stop(Exception):
    pass


@pytest.mark.parametrize("before", [None, b"", b"old"])
@pytest.mark.parametrize("written", [None, b"part"])
def test_atomic_path_keeps_the_old_content_on_failure(
    tmp_path: Path, before: bytes | None, written: bytes | None
) -> None:
    target = tmp_path / "file"
    if before is not None:
        target.write_bytes(before)
    with pytest.raises(Stop), files.atomic_path(target) as temporary:
        if written is not None:
            temporary.write_bytes(written)
        raise Stop

    assert (target.read_bytes() if target.exists() else None) == before
    assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["file"])


@pytest.mark.parametrize("name", ["plain", "ф" * 120, "🌄" * 60, "two\nlines"])
def test_atomic_path_writes_whole_files_under_any_name(tmp_path: Path, name: str) -> None:
    for value in ({"a": 1}, {"b": "ü"}):
        files.write_json(tmp_path / "new" / name, value)
        assert json.loads((tmp_path / "new" / name).read_text(encoding="utf-8")) == value

    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


@pytest.mark.parametrize("there", [False, True])
def test_replace_folder_is_all_or_nothing(tmp_path: Path, there: bool) -> None:
    target = tmp_path / "folder"
    if there:
        files.replace_folder(target, lambda path: files.write_bytes(path / "old", b"old"))

    def fail(path: Path) -> None:
        (path / "new").write_bytes(b"part")
        raise Stop

    with pytest.raises(Stop):
        files.replace_folder(target, fail)
    assert [path.name for path in tmp_path.rglob("*")] == (["folder", "old"] if there else [])

    files.replace_folder(target, lambda path: files.write_bytes(path / "new", b"new"))
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


def test_replace_folder_puts_the_old_one_back_if_the_new_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    files.replace_folder(target, lambda path: files.write_bytes(path / "old", b"old"))
    rename = Path.rename

    def refuse(path: Path, to: Path) -> Path:
        if to == target and path.name.endswith(".tmp"):
            raise OSError("not now")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="not now"):
        files.replace_folder(target, lambda path: files.write_bytes(path / "new", b"new"))
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


def test_what_replace_folder_writes_others_may_read(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        (path / "file").touch(mode=0o600)

    files.replace_folder(tmp_path / "folder", fill)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "folder" / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ENOSPC", Failure), ("EDQUOT", Failure), ("EACCES", Failure), ("EROFS", Failure), ("EISDIR", BadInput)],
)
def test_errors_of_the_disk_name_the_file_and_a_remedy(tmp_path: Path, name: str, kind: type[Exception]) -> None:
    code = getattr(errno, name)
    with pytest.raises(kind, match=r"file: .*; (free|choose) "), files.disk_errors(tmp_path / "file"):
        raise OSError(code, os.strerror(code))
