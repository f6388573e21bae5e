"""Exports: the graph that leaves the house gives what the encoder gives, whatever the size, length, batch or form."""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fastness as fs
from conftest import picture, png, write_pictures
from fastness.bundle import Bundle
from fastness.data.square import centred_square
from fastness.delivery.export import Export, export
from fastness.delivery.forms import FORMS
from fastness.delivery.parity import Parity
from fastness.delivery.square import squares_first
from fastness_runtime import Unusable
from fastness_runtime import load as load_export

WORDS = ("red", "blue", "round", "square", "cat", "dog", "house", "tree", "runs", "sleeps", "under", "over", "the", "a")
SIZES = [(16, 16), (40, 17), (9, 30), (64, 64), (100, 33), (16, 31)]


def texts(n: int, seed: int = 0) -> list[str]:
    """Sentences of one to thirty words."""
    lots = np.random.default_rng(seed)
    return [" ".join(lots.choice(WORDS, lots.integers(1, 30))) for _ in range(n)]


def mixed(n: int) -> list[np.ndarray]:
    """Pictures of different sizes."""
    return [picture(i, 128)[: SIZES[i % 6][0], : SIZES[i % 6][1]] for i in range(n)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with numbers, dates, categories and gaps."""
    lots = np.random.default_rng(0)
    lines = ["age,since,colour,kind"]
    for i in range(200):
        age = "" if i % 7 == 0 else f"{lots.normal(40, 10):.1f}"
        colour = "" if i % 11 == 0 else lots.choice(["red", "green", "blue"])
        lines.append(
            f"{age},20{lots.integers(10, 24)}-0{lots.integers(1, 9)}-1{lots.integers(0, 9)},{colour},{'ab'[i % 2]}"
        )
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module", params=["image", "transformer", "static", "table"])
def made(request: pytest.FixtureRequest, bundle: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A bundle of each kind, data to compare by, and items as the runtime takes them."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "image":
        pixels = mixed(300)
        for i, array in enumerate(pixels):
            write_pictures(folder / "items" / f"{i:02}", array[None])
        return fs.load(bundle), folder / "items", pixels
    if request.param == "table":
        run = fs.train(rows, steps=4, batch_size=32, out=folder / "run", quiet=True)
        return fs.load(run.bundle), rows, None
    path = folder / "texts.txt"
    path.write_text("\n".join(texts(80)))
    network = {} if request.param == "static" else {"layers": 1, "heads": 2}
    run = fs.train(
        path, encoder=request.param, width=16, steps=3, batch_size=16, network=network, out=folder / "run", quiet=True
    )
    return fs.load(run.bundle), path, texts(30, seed=1)


@pytest.fixture(scope="module")
def pictures_out(bundle: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The tiny bundle of pictures, exported; not to be changed."""
    return export(bundle, labelled, out=tmp_path_factory.mktemp("out") / "export")


@pytest.mark.parametrize("form", list(FORMS))
def test_an_export_gives_what_the_encoder_gives(made: tuple, form: str, tmp_path: Path) -> None:
    bundle, data, items = made
    if bundle.modality not in (FORMS.get(form).modalities or [bundle.modality]):
        with pytest.raises(fs.BadInput, match=f"--format {form}: is made of encoders of texts alone"):
            export(bundle, data, form, out=tmp_path / "export")
        return
    if form == "static":
        return  # has a geometry of its own; see test_int8.py
    found = export(bundle, data, form, out=tmp_path / "export")
    assert found.parity.holds and found.parity.least >= FORMS.get(form).floor and found.parity.alone < 1e-5
    loaded = load_export(found.folder)
    assert loaded.about["bundle"] == bundle.id and loaded.dim == bundle.dim
    if items is not None:
        ours, theirs = loaded.embed(items), bundle.embed(items)
        assert (ours * theirs).sum(1).min() >= FORMS.get(form).floor
        raw = bundle.embed(items, normalize=False)
        assert np.abs(loaded.embed(items, normalize=False) - raw).max() <= 0.1 * np.abs(raw).max()
        np.testing.assert_allclose(loaded.embed(items, batch_size=1), ours, atol=1e-5)
        assert loaded.embed(items[:0]).shape == (0, bundle.dim)


@pytest.mark.parametrize("form", ["onnx", "onnx-int8", "static"])
def test_an_export_within_its_bundle_is_measured_as_a_bundle(
    made: tuple, form: str, labelled: Path, tmp_path: Path
) -> None:
    bundle, data, items = made
    if form == "static" and bundle.encoder.spec.name != "transformer":
        return
    whole = fs.load(shutil.copytree(bundle.path, tmp_path / "bundle"))
    folder = export(whole, data, form, floor=-1.0).folder
    loaded = fs.load(folder)
    assert isinstance(loaded, Bundle) and loaded.modality == bundle.modality
    assert loaded.item_hashes == bundle.item_hashes and loaded.id != bundle.id
    if items is not None:
        # Not to the last bit: pictures are made squares outside of the graph, texts are in other batches.
        assert (loaded.embed(items) * load_export(folder).embed(items)).sum(1).min() > 0.999
    if bundle.modality == "image":
        report = fs.evaluate(loaded, labelled, checks=["geometry", "knn"])
        assert report.evidence.folder.parent == folder / "evidence" and report["knn.accuracy"] > 0
        with pytest.raises(fs.BadInput, match="an export cannot be trained"):
            fs.evaluate(loaded, labelled, checks=["fine_tuned"])
    if bundle.modality == "text":
        pairs = tmp_path / "pairs.csv"
        lines = [f"{a},{b},{i % 6}" for i, (a, b) in enumerate(zip(texts(24), texts(24, 1), strict=True))]
        pairs.write_text("\n".join(["one,other,alike", *lines]))
        report = fs.evaluate(loaded, pairs, checks=["similarity"], text="one,other", score="alike")
        assert report.evidence.about["bundle"] == loaded.id and -1 <= report["similarity.spearman"] <= 1
    shutil.copytree(folder, tmp_path / "alone")
    with pytest.raises(fs.BadInput, match="lies apart from its bundle"):
        fs.load(tmp_path / "alone")


def test_weights_of_16_bits_halve_the_file(pictures_out: Export, bundle: Path, labelled: Path, tmp_path: Path) -> None:
    half = export(bundle, labelled, "onnx-fp16", out=tmp_path / "half")
    weights = sum(4 * p.numel() for p in fs.load(bundle).encoder.parameters())
    assert pictures_out.bytes - half.bytes > 0.4 * weights


@settings(max_examples=40)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    size=st.sampled_from([8, 16, 33, 64]),
    seed=st.integers(0, 99),
)
def test_squares_within_the_graph_are_torchs_to_one_level(height: int, width: int, size: int, seed: int) -> None:
    import onnxruntime

    shape = ["batch", 3, size, size]
    same = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["square"], ["out"])], "same",
        [onnx.helper.make_tensor_value_info("square", onnx.TensorProto.UINT8, shape)],
        [onnx.helper.make_tensor_value_info("out", onnx.TensorProto.UINT8, shape)],
    )  # fmt: skip
    model = onnx.helper.make_model(same, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    graph = squares_first(model, size)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = np.ascontiguousarray(picture(seed, 200)[:height, :width].transpose(2, 0, 1))[None].copy()
    (found,) = session.run(None, {"pixels": pixels})
    expected = centred_square(torch.from_numpy(pixels), size).numpy()
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_rows_as_mappings_are_coded_as_the_schema_codes_them(rows: Path, tmp_path: Path) -> None:
    """Numbers, dates and texts as a program has them give what the cells of the file give."""
    run = fs.train(rows, steps=2, batch_size=32, out=tmp_path / "run", quiet=True)
    bundle = fs.load(run.bundle)
    found = load_export(export(bundle, rows, out=tmp_path / "export").folder)
    header, *lines = rows.read_text().splitlines()
    mappings = [
        {name: None if not cell else float(cell) if name == "age" else cell
         for name, cell in zip(header.split(","), line.split(","), strict=True)}
        for line in lines
    ]  # fmt: skip
    np.testing.assert_allclose(found.embed(mappings), bundle.embed(rows), atol=1e-5)
    strange = found.embed([{**mappings[0], "colour": "violet"}])
    assert np.isfinite(strange).all()
    for wrong, said in [
        ({"age": 1}, "no column 'since'"),
        ({**mappings[0], "since": "soon"}, "item 0"),
        (7, "a int is no row"),
    ]:
        with pytest.raises(Unusable, match=said):
            found.embed([wrong])


def test_each_side_is_exported_alone(tmp_path: Path) -> None:
    images = [{"bytes": png(picture(i)), "path": None} for i in range(32)]
    things = tmp_path / "things.parquet"
    pq.write_table(pa.table({"picture": images, "words": texts(32)}), things)
    sides = {"image": "picture", "text": "words"}
    run = fs.train(things, columns=sides, steps=2, batch_size=8, out=tmp_path / "run", quiet=True)
    with pytest.raises(fs.BadInput, match="--side"):
        export(run.bundle, things, **sides)
    for kind, side in sides.items():
        found = export(run.bundle, things, side=side, **{kind: side})
        assert found.folder == run.bundle / "exports" / f"onnx-{side}" and found.parity.holds
    assert fs.load(run.bundle).id == run.id


class Turned(Bundle):
    """A bundle whose vectors are not what its encoder gives."""

    def embed_items(self, *args: object, **named: object) -> np.ndarray:
        """Return the vectors with their places exchanged."""
        return super().embed_items(*args, **named)[:, ::-1]  # type: ignore[arg-type]


def test_an_export_below_its_floor_is_refused_and_leaves_nothing(bundle: Path, labelled: Path, tmp_path: Path) -> None:
    honest = fs.load(bundle)
    turned = Turned(honest.path, honest.id, honest.encoder, honest.recipe, honest.data)
    with pytest.raises(fs.GateRefused, match=r"onnx refused: item \d+ of 24 has a cosine of"):
        export(turned, labelled, out=tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_export_is_refused(pictures_out: Export, tmp_path: Path) -> None:
    folder = shutil.copytree(pictures_out.folder, tmp_path / "export")
    graph = folder / "encoder.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(Unusable) as said:
        load_export(folder)
    assert str(folder) in str(said.value) and "\n" not in str(said.value)


def test_the_runtime_needs_no_torch(pictures_out: Export, bundle: Path) -> None:
    program = (
        "import sys, json, numpy as np\n"
        "from fastness_runtime import load\n"
        f"z = load({str(pictures_out.folder)!r}).embed([np.full((20, 30, 3), 7, np.uint8)])\n"
        "print(json.dumps([z.shape, sorted({'torch', 'fastness', 'onnx', 'PIL', 'pyarrow'} & set(sys.modules))]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[1, fs.load(bundle).dim], []]


def test_files_of_pictures_are_decoded_as_they_are_in_training(pictures_out: Export, bundle: Path) -> None:
    files = [png(array) for array in mixed(12)]
    loaded = load_export(pictures_out.folder)
    np.testing.assert_allclose(loaded.embed(files), fs.load(bundle).embed(mixed(12)), atol=1e-4)
    with pytest.raises(Unusable, match="item 1: no picture in any known format"):
        loaded.embed([files[0], b"no picture"])


@pytest.mark.parametrize(
    ("items", "said"),
    [([np.zeros((4, 4), np.float32)], "item 0"), ([np.zeros((0, 5, 3), np.uint8)], "item 0"),
     ([np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5, 2), np.uint8)], "item 1")],
)  # fmt: skip
def test_items_that_are_no_pictures_are_named(pictures_out: Export, items: list[np.ndarray], said: str) -> None:
    with pytest.raises(Unusable, match=f"{said}: .*no picture"):
        load_export(pictures_out.folder).embed(items)


def test_many_texts_at_once_are_what_each_is_alone(made: tuple, tmp_path: Path) -> None:
    """A thread for each batch, batches of few tokens, and rows as long as they are: none of it is to be seen."""
    bundle, data, _ = made
    if bundle.modality != "text":
        return
    lines = [*texts(120, seed=2), " ".join(texts(40, seed=3)), "cat"]
    for form in ("onnx", "onnx-int8", "openvino-int8"):
        export(bundle, data, form, out=tmp_path / form)
        loaded = load_export(tmp_path / form, threads=2)
        assert len(list(loaded.batches(lines, 16))) >= 8
        whole = loaded.embed(lines, batch_size=16)
        alone = np.concatenate([loaded.embed([line]) for line in lines])
        np.testing.assert_allclose(whole, alone, atol=1e-5)
        assert (whole * bundle.embed(lines)).sum(1).min() >= FORMS.get(form).floor
        with pytest.raises(Unusable, match="item 130: int without words"):
            loaded.embed([*lines, *lines[:8], 3])


def test_photographs_are_decoded_at_a_fraction_as_they_are_in_training(
    pictures_out: Export, bundle: Path, tmp_path: Path
) -> None:
    """A JPEG that is decoded in full has other pixels once it is small."""
    for i in range(6):
        Image.fromarray(picture(i, 800)[:700, :]).save(tmp_path / f"{i}.jpg", quality=90)
    files = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    found = load_export(pictures_out.folder).embed(files)
    assert (found * fs.load(bundle).embed(tmp_path)).sum(1).min() > 0.9999


def test_a_file_of_three_rows_of_pixels_is_a_picture(pictures_out: Export) -> None:
    flat = picture(3, 60)[:3]
    loaded = load_export(pictures_out.folder)
    np.testing.assert_allclose(loaded.embed([png(flat)]), loaded.embed([np.moveaxis(flat, 2, 0)]), atol=1e-6)


def test_what_stays_with_an_export_is_small_however_large_its_items_are(bundle: Path, tmp_path: Path) -> None:
    for i in range(20):
        write_pictures(tmp_path / "items" / f"{i:02}", picture(i, 900)[None])
    found = export(bundle, tmp_path / "items", out=tmp_path / "export")
    with np.load(found.folder / "sample.npz") as kept:
        assert kept["batch"].nbytes <= 4 << 20 and len(kept["batch"]) == len(kept["embeddings"]) >= 1


def test_pictures_of_many_sizes_come_back_in_their_places(
    pictures_out: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only some of them have room at once."""
    items = mixed(200)
    loaded = load_export(pictures_out.folder)
    whole = loaded.embed(items)
    monkeypatch.setattr("fastness_runtime.items._HELD", 1)
    monkeypatch.setattr("fastness_runtime.items._DECODED", 7)
    np.testing.assert_allclose(loaded.embed(items), whole, atol=1e-5)


def test_decoding_leaves_the_warnings_of_others_alone(pictures_out: Export) -> None:
    before = list(warnings.filters)
    loaded = load_export(pictures_out.folder)
    for _ in range(4):
        loaded.embed([png(array) for array in mixed(16)])
    assert warnings.filters == before


def test_cells_as_programs_have_them_are_coded_as_the_files_are(tmp_path: Path) -> None:
    """Flags, spaces around a text, words for nothing, and moments of another zone."""
    n, lots = 200, np.random.default_rng(0)
    zone = datetime.timezone(datetime.timedelta(hours=2))
    began = datetime.datetime(2024, 1, 1, 1, tzinfo=zone)
    moments = [began + datetime.timedelta(hours=int(h)) for h in lots.integers(0, 9000, n)]
    columns = {
        "paid": lots.random(n) < 0.5,
        "colour": lots.choice(["red", "blue", "NA"], n).tolist(),
        "at": moments,
        "size": lots.normal(size=n),
    }
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table(columns), path)
    run = fs.train(path, steps=2, batch_size=32, out=tmp_path / "run", quiet=True)
    bundle = fs.load(run.bundle)
    loaded = load_export(export(bundle, path, out=tmp_path / "export").folder)
    rows = [{name: values[i] for name, values in columns.items()} for i in range(n)]
    rows[3] |= {"colour": f" {rows[3]['colour']} "}
    rows[4] |= {"at": rows[4]["at"].isoformat()}
    assert (loaded.embed(rows) * bundle.embed(path)).sum(1).min() > 0.9999


def test_long_texts_are_no_longer_than_the_encoder_has_places(tmp_path: Path) -> None:
    """Rows are padded to multiples of eight, of which the last may lie behind the last place."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*texts(40), " ".join(["cat"] * 400)]))
    network = {"layers": 1, "heads": 2}
    options = {"encoder": "transformer", "width": 16, "size": 130, "steps": 2, "batch_size": 8, "network": network}
    bundle = fs.load(fs.train(path, out=tmp_path / "run", quiet=True, **options).bundle)
    loaded = load_export(export(bundle, path, out=tmp_path / "export").folder)
    np.testing.assert_allclose(
        loaded.embed([" ".join(["dog"] * 300)]), bundle.embed([" ".join(["dog"] * 300)]), atol=1e-4
    )
    for text in ("\u200b", "half \ud800 a pair"):
        with pytest.raises(Unusable, match="item 1"):
            loaded.embed(["cat", text])


def test_few_items_are_divided_between_calibrating_and_comparing(bundle: Path, labelled: Path, tmp_path: Path) -> None:
    found = export(bundle, labelled, "onnx-int8", out=tmp_path / "export")
    assert found.parity.items == len(fs.open_data(labelled)) / 2
    assert json.loads((found.folder / "parity.json").read_text())["held_out"] is True


def test_nothing_else_is_replaced(pictures_out: Export, bundle: Path, labelled: Path, tmp_path: Path) -> None:
    kept = tmp_path / "models"
    kept.mkdir()
    (kept / "years of work").touch()
    with pytest.raises(fs.BadInput, match="holds other things"):
        export(bundle, labelled, out=kept)
    with pytest.raises(fs.BadInput, match="holds other things"):
        export(bundle, labelled, out=bundle)
    with pytest.raises(fs.BadInput, match="holds other things"):
        fs.prune(bundle, labelled, 0.5, out=kept)
    with pytest.raises(fs.BadInput, match="is what this is made from"):
        fs.prune(bundle, labelled, 0.5, out=bundle)
    assert (kept / "years of work").exists()


def test_a_graph_that_the_runtime_cannot_load_is_told_in_a_line(pictures_out: Export, tmp_path: Path) -> None:
    folder = shutil.copytree(pictures_out.folder, tmp_path / "export")
    (folder / "encoder.onnx").write_bytes(b"no graph")
    about = json.loads((folder / "export.json").read_text())
    about["files"]["encoder.onnx"] = hashlib.sha256(b"no graph").hexdigest()
    (folder / "export.json").write_text(json.dumps(about))
    with pytest.raises(Unusable, match="cannot load it") as said:
        load_export(folder)
    assert "\n" not in str(said.value)


def test_what_depends_on_its_batch_is_refused() -> None:
    parity = Parity(9, 1.0, 1.0, 0, 0.01, 1.0, "least", 0.9)
    assert not parity.holds and "otherwise than among others" in parity.said


def test_an_export_is_neither_exported_nor_cut(bundle: Path, labelled: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    folder = export(whole, labelled).folder
    for call in (
        lambda: export(folder, labelled, out=tmp_path / "x"),
        lambda: fs.prune(folder, labelled, 0.5, out=tmp_path / "x"),
        lambda: fs.narrow(folder, labelled, 2, out=tmp_path / "x"),
    ):
        with pytest.raises(fs.BadInput):
            call()
