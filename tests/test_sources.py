"""The same pictures are the same data set, whatever form they come in."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from conftest import LABELS, PIXELS, idx, tar_folder, write_classes, write_parquet, write_pictures, zip_folder
from fastness.core.errors import BadInput
from fastness.data import Dataset, open_data
from fastness.data.manifest import printable
from fastness.data.show import as_seen, plural
from fastness_runtime.decode import decode


def read(dataset: Dataset) -> np.ndarray:
    """Return all pixels ``[N, H, W, 3]`` in order."""
    return np.stack([decode(dataset.payloads.read(int(row))) for row in dataset.rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of four pictures."""
    return write_classes(tmp_path / "photos")


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_an_archive_is_the_folder_that_was_packed(folder: Path, tmp_path: Path, ending: str) -> None:
    packed = tmp_path / f"packed.{ending}"
    (zip_folder if ending == "zip" else tar_folder)(folder, packed)

    ours, theirs = open_data(folder), open_data(packed)

    assert ours.fingerprint == theirs.fingerprint
    assert theirs.class_names == ("a", "b") and theirs.labels.tolist() == [0] * 4 + [1] * 4
    assert [name.removeprefix("photos/") for name in theirs.manifest.names] == ours.manifest.names
    assert np.array_equal(read(ours), read(theirs))


def test_links_in_a_tar_are_what_they_point_to(folder: Path, tmp_path: Path) -> None:
    os.link(folder / "a" / "00.png", folder / "a" / "hard.png")
    (folder / "b" / "soft.png").symlink_to(Path("..") / "a" / "01.png")
    packed = tmp_path / "packed.tar"
    tar_folder(folder, packed)
    assert len(open_data(packed)) == 10 and open_data(packed).fingerprint == open_data(folder).fingerprint
    (folder / "b" / "lost.png").symlink_to("nowhere.png")
    tar_folder(folder, packed)
    assert [q.name.removeprefix("photos/") for q in open_data(packed).quarantine] == ["b/lost.png"]


def test_renaming_that_keeps_the_order_changes_nothing_and_one_byte_does(folder: Path) -> None:
    before = open_data(folder).fingerprint
    (folder / "a" / "01.png").rename(folder / "a" / "01 renamed.jpg")
    assert open_data(folder).fingerprint == before

    path = folder / "b" / "00.png"
    changed, then = bytearray(path.read_bytes()), path.stat()
    changed[-1] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))  # as old and as long as before
    assert open_data(folder).fingerprint != before


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        (PIXELS, PIXELS),
        (PIXELS.transpose(0, 3, 1, 2), PIXELS),
        (PIXELS[..., 0], PIXELS[..., [0, 0, 0]]),
        (PIXELS[..., :1], PIXELS[..., [0, 0, 0]]),
        (np.concatenate([PIXELS, np.full_like(PIXELS[..., :1], 255)], 3), PIXELS),
        (np.concatenate([PIXELS, np.zeros_like(PIXELS[..., :1])], 3), np.full_like(PIXELS, 255)),  # on white
        (torch.from_numpy(PIXELS).permute(0, 3, 1, 2), PIXELS),
        (torch.nn.Parameter(torch.from_numpy(PIXELS / np.float32(255))), PIXELS),
        (PIXELS / 255.0, PIXELS),
        (PIXELS.astype(np.uint16) * 257, PIXELS),
        (list(PIXELS), PIXELS),
        ([Image.fromarray(p) for p in PIXELS], PIXELS),
        ([torch.from_numpy(p).permute(2, 0, 1) for p in PIXELS], PIXELS),
    ],
)
def test_arrays_of_any_layout(form: object, shown: np.ndarray) -> None:
    opened = open_data((form, LABELS))

    assert np.array_equal(read(opened), shown)
    assert opened.labels.tolist() == LABELS and opened.class_names == ("0", "1")


def test_layouts_of_the_same_pixels_have_the_same_fingerprint() -> None:
    nhwc, nchw = open_data(PIXELS), open_data(np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)))
    assert nhwc.fingerprint == nchw.fingerprint == open_data(torch.from_numpy(PIXELS)).fingerprint


@given(
    arrays.arrays(
        st.sampled_from([np.bool_, np.uint8, np.uint16, np.int32, np.int64, np.float32, np.float64]),
        st.one_of(
            st.tuples(st.integers(1, 3), *[st.integers(1, 9)] * 2),
            st.tuples(st.integers(1, 3), st.integers(5, 9), st.integers(5, 9), st.sampled_from([1, 3, 4])),
            st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 4]), st.integers(5, 9), st.integers(5, 9)),
        ),
        elements={"min_value": 0, "max_value": 255},
    )
)
def test_every_array_of_pictures_opens_and_decodes(array: np.ndarray) -> None:
    opened = open_data(array)
    pixels = read(opened)

    assert len(opened) == len(array) and pixels.dtype == np.uint8 and pixels.shape[-1] == 3
    assert opened.fingerprint == open_data(array.copy()).fingerprint


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=6, max_side=7)))
def test_an_array_opens_or_is_refused_in_one_line(array: np.ndarray) -> None:
    try:
        assert len(open_data(array)) == len(array)
    except BadInput as error:
        assert "\n" not in str(error) and "give" in str(error)


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (["dog", "cat"] * 4, [1, 0] * 4, ("cat", "dog")),
        ([10, 9] * 4, [1, 0] * 4, ("9", "10")),
        (np.array(LABELS)[:, None], LABELS, ("0", "1")),
        ([torch.tensor(value) for value in LABELS], LABELS, ("0", "1")),
        ([0, -1, 1, None, float("nan"), "", 1, 0], [0, -1, 1, -1, -1, -1, 1, 0], ("0", "1")),
        (["b", "NA", "NaN", " ", "?", "<NA>", "null", "a"], [1, *[-1] * 6, 0], ("a", "b")),
        (["+", "-", "none", "."] * 2, [0, 1, 3, 2] * 2, ("+", "-", ".", "none")),
    ],
)
def test_labels_of_any_type(labels: object, numbers: list[int], names: tuple[str, ...]) -> None:
    opened = open_data((PIXELS, labels))
    assert opened.labels.tolist() == numbers and opened.class_names == names


@pytest.mark.parametrize("labels", [LABELS[:-1], np.eye(8), [[1], [2]] * 4])
def test_labels_that_do_not_fit_are_refused(labels: object) -> None:
    with pytest.raises(BadInput, match="give one label an item"):
        open_data((PIXELS, labels))


def test_a_list_is_texts_where_texts_are_wanted() -> None:
    opened = open_data((["one text", "another"], ["b", "a"]), modality="text")
    assert opened.modality == "text" and [opened.payloads.read(row) for row in opened.rows] == ["one text", "another"]
    assert opened.labels is not None and opened.labels.tolist() == [1, 0] and opened.class_names == ("a", "b")
    with pytest.raises(BadInput, match=r"item 1: .*leave it out"):
        open_data(["one text", ""], modality="text")


def test_lists_of_paths_bytes_and_pictures(folder: Path) -> None:
    paths = sorted(folder.rglob("*.png"))
    as_folder = open_data(folder)

    for form in (paths, [str(p) for p in paths], tuple(map(str, paths[:2])), [p.read_bytes() for p in paths]):
        assert np.array_equal(open_data(form).manifest.hashes, as_folder.manifest.hashes[: len(form)])
    assert np.array_equal(read(open_data([Image.open(p) for p in paths])), read(as_folder))
    with pytest.raises(BadInput, match=r"item 1: .*gone\.png"):
        open_data([paths[0], folder / "gone.png"])


class Items(torch.utils.data.Dataset):
    def __init__(self, item: Callable[[int], object], **attributes: object) -> None:
        self.item = item
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, i: int) -> object:
        return self.item(i)


@pytest.mark.parametrize(
    ("dataset", "labels", "names"),
    [
        (Items(lambda i: PIXELS[i]), None, ()),
        (Items(lambda i: (Image.fromarray(PIXELS[i]), LABELS[i])), LABELS, ("0", "1")),
        (Items(lambda i: (PIXELS[i], torch.tensor(LABELS[i])), classes=["cat", "dog"]), LABELS, ("cat", "dog")),
        (Items(lambda i: PIXELS[i], targets=torch.tensor(LABELS)), LABELS, ("0", "1")),
        (Items(lambda i: (PIXELS[i], torch.zeros(4, 4))), None, ()),  # a mask
        (Items(lambda i: (PIXELS[i], {"boxes": []})), None, ()),
    ],
)
def test_torch_datasets(dataset: Items, labels: list[int] | None, names: tuple[str, ...]) -> None:
    opened = open_data(dataset)

    assert np.array_equal(read(opened), PIXELS)
    assert (None if opened.labels is None else opened.labels.tolist()) == labels and opened.class_names == names
    assert open_data(dataset, label="none").labels is None


def test_a_torch_dataset_is_read_by_one_thread_at_a_time() -> None:
    within, most = [0], [0]

    def item(i: int) -> np.ndarray:
        within[0] += 1
        most[0] = max(most[0], within[0])
        time.sleep(0.001)
        within[0] -= 1
        return PIXELS[i]

    payloads = open_data(Items(item)).payloads
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(payloads.read, [*range(8)] * 4))
    assert np.array_equal(np.stack(found), np.concatenate([PIXELS] * 4)) and most == [1]


def test_numpy_files_are_their_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", PIXELS)
    part = np.array(["train"] * 5 + ["val"] * 3)
    np.savez(tmp_path / "x.npz", images=PIXELS, labels=LABELS, part=part, other=PIXELS[:2])

    named = open_data(tmp_path / "x.npz", split="part")

    assert open_data(tmp_path / "x.npy").fingerprint == open_data(PIXELS).fingerprint
    assert open_data(tmp_path / "x.npz").fingerprint == open_data((PIXELS, LABELS)).fingerprint
    assert len(named.split("val")) == len(named.split("validation")) == 3
    assert len(open_data(tmp_path / "x.npz", image="other", label="none", split="none")) == 2
    with pytest.raises(BadInput, match="no array 'z'; there are: images, labels, part, other"):
        open_data(tmp_path / "x.npz", image="z")
    np.savez(tmp_path / "single.npz", images=PIXELS, label=3)
    with pytest.raises(BadInput, match=r"single\.npz: array 'label' is a single value"):
        open_data(tmp_path / "single.npz")


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, ".gz"), (bytes, "")])
def test_idx_files_and_folders(tmp_path: Path, pack: Callable[[bytes], bytes], ending: str) -> None:
    grey, labels = PIXELS[..., 0], np.array(LABELS)
    for part, rows in (("train", slice(0, 5)), ("t10k", slice(5, 8))):
        (tmp_path / f"{part}-images-idx3-ubyte{ending}").write_bytes(pack(idx(grey[rows])))
        (tmp_path / f"{part}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels[rows])))

    whole, one = open_data(tmp_path), open_data(tmp_path / f"t10k-images-idx3-ubyte{ending}")

    assert np.array_equal(read(whole)[..., 0], grey) and whole.labels.tolist() == LABELS
    assert len(whole.split("train")) == 5 and len(whole.split("test")) == 3
    assert one.split_names == () and one.labels.tolist() == LABELS[5:]
    assert np.array_equal(one.manifest.hashes, whole.split("test").manifest.hashes)


BIRDS = ["cat", "dog", "bird"]


def test_parquet_as_hugging_face_lays_it_out(tmp_path: Path) -> None:
    one = open_data(write_parquet(tmp_path / "one" / "all.parquet", range(8), BIRDS))
    parts = {"train-00000-of-00002": range(3), "train-00001-of-00002": range(3, 5), "test": range(5, 8)}
    for name, rows in parts.items():
        write_parquet(tmp_path / "many" / f"{name}.parquet", rows, BIRDS)
    pq.write_table(pa.table({"id": ["0"]}), tmp_path / "many" / "embeddings.parquet")  # a stranger
    many = open_data(tmp_path / "many")

    assert np.array_equal(read(one), PIXELS) and one.split_names == ()
    assert one.labels.tolist() == LABELS and one.class_names == many.class_names == tuple(BIRDS)
    assert np.array_equal(read(many.split("train")), PIXELS[:5]) and np.array_equal(
        read(many.split("test")), PIXELS[5:]
    )


def test_columns_of_parquet(tmp_path: Path) -> None:
    columns = {"part": ["train", "val"] * 4, "who": list("aabbccdd"), "kind": ["k", "l"] * 4}
    path = write_parquet(tmp_path / "x.parquet", range(8), **columns)
    opened = open_data(path, label="kind", split="part", group="who")
    gaps = {"part": [None, "val"] * 4, "who": [None, None, *"bbccdd"]}
    nobody = open_data(write_parquet(tmp_path / "gaps.parquet", range(8), **gaps), split="part", group="who")
    assert nobody.manifest.groups.tolist() == ["", "", *"bbccdd"] and nobody.split_names == ("validation",)

    assert opened.class_names == ("k", "l") and opened.split_names == ("train", "validation")
    assert opened.manifest.groups.tolist() == list("aabbccdd")
    rest, part = opened.divide(0.25, 0)
    assert not set(rest.manifest.groups) & set(part.manifest.groups)
    assert open_data(path, label="none").labels is None
    for wrong in ({"label": "z"}, {"split": "z"}, {"group": "z"}, {"image": "label"}):
        with pytest.raises(BadInput, match=r"x\.parquet: .*columns: image, label, part, who, kind"):
            open_data(path, **wrong)


def test_a_column_of_splits_is_found_whatever_is_read_beside_it(tmp_path: Path) -> None:
    title = [f"a {name} thing" for name in "abcdefgh"]
    path = write_parquet(
        tmp_path / "prod.parquet", range(8), title=title, split=["train"] * 5 + ["Val", "test", "test"]
    )
    for asked in ({"text": "title"}, {"image": "image"}, {"image": "image", "text": "title"}, {}):
        opened = open_data(path, **asked)
        assert opened.split_names == ("test", "train", "validation") and len(opened.training_part()) == 5
        assert "split" not in opened.manifest.facts
    for free in ({"split": "none"}, {"group": "split"}):
        assert open_data(path, image="image", **free).split_names == ()
    other = write_parquet(tmp_path / "other.parquet", range(8), split=["left", "right"] * 4)
    assert open_data(other).split_names == ()
    with pytest.raises(BadInput, match=r"--split split says .* \(left, right\)"):
        open_data(other, split="split")
    for part in ("train", "test"):  # as the files are called, whatever was in the columns before they were parted
        write_parquet(tmp_path / "many" / f"{part}.parquet", range(4), split=["train"] * 4)
    assert len(open_data(tmp_path / "many").split("test")) == 4


def test_a_folder_of_pictures_with_a_table_beside_them_is_of_pictures(folder: Path) -> None:
    before = open_data(folder).fingerprint
    pq.write_table(pa.table({"id": ["0"], "vector": [[1.0]]}), folder / "embeddings.parquet")

    assert open_data(folder).fingerprint == before


@pytest.mark.parametrize(
    ("name", "items", "classes", "splits", "source"),
    [
        ("cifar10_jpeg", 60_000, 10, {"train": 50_000, "test": 10_000}, "torchvision.datasets.CIFAR10"),
        ("tiny_imagenet_100", 17_500, 100, {"train": 15_000, "validation": 2_500}, "Tiny-ImageNet"),
        ("emoji", 5_674, 0, {}, "npm emoji-datasource-*"),
        (
            "clothing/clothing.zip",
            3_781,
            10,
            {"train": 3_068, "validation": 341, "test": 372},
            "clothing-dataset-small (CC0)",
        ),
        ("magnetic_tile/magnetic_tile.zip", 2 * (952 + 392), 2, {}, "Magnetic-tile-defect"),
        ("tracking/crossing", 120, 0, {}, "OTB"),
    ],
)
def test_shared_data(
    shared_data: Path, name: str, items: int, classes: int, splits: dict[str, int], source: str
) -> None:
    if not (shared_data / name).exists():
        pytest.skip(f"{shared_data / name} is not there; its standard source is {source}")
    opened = open_data(shared_data / name)

    assert len(opened) == items and not opened.quarantine
    assert len(opened.class_names) == classes
    assert opened.manifest.summary()["splits"] == splits


def test_what_is_in_memory_is_named_by_its_type_not_by_its_bytes(tmp_path: Path) -> None:
    write_pictures(tmp_path, PIXELS[:1])
    data = [next(tmp_path.iterdir()).read_bytes()] * 50
    with pytest.raises(BadInput, match=r"^a list: holds pictures, not texts") as refusal:
        open_data(data, modality="text")
    assert len(str(refusal.value)) < 200


def test_an_item_is_seen_as_its_modality_says() -> None:
    assert as_seen("two\nlines", "text") == printable("two\nlines")
    assert as_seen({"age": 30, "job": None}, "table") == "age: 30; job: "
    assert as_seen(PIXELS[0], "image").size == PIXELS[0].shape[1::-1]
    assert as_seen(b"rubbish", "image").size == (1, 1)
    assert as_seen(b"RIFF", "sound") == "(sound)"
    assert plural("table") == "rows" and plural("sound") == "sound items"
