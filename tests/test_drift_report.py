"""The drift report and its verb: hostile names are text, every kind of input, either scheme, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastness as fs
from conftest import Ended, pictures, write_pictures
from fastness.core.errors import BadInput, GateRefused
from fastness.monitoring.drift import drifted
from fastness.monitoring.explain.explain import explain
from fastness.monitoring.kept import stored
from fastness.monitoring.report import plots, report
from fastness.monitoring.sketching import of_window
from fastness.monitoring.window import Window
from served import Made
from test_search_page import CHROMIUM, OUTSIDE, Browser

HOSTILE = "<img src=x onerror=document.title='owned'> $x_1^2$ | `a` \x1b[31m"


def window(seed: int, n: int = 150, new: float = 0.0) -> Window:
    """Return items of which a share lies apart and says so, named by who means harm."""
    rng = np.random.default_rng(seed)
    apart = rng.random(n) < new
    vectors = rng.normal(size=(n, 16)) + np.where(apart, 6, 0)[:, None] * np.eye(16)[3]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns = {
        "source": np.where(apart, HOSTILE, "usual").astype(object),
        f"light {HOSTILE}": rng.normal(size=n) + 4 * apart,
    }
    return Window(vectors.astype(np.float32), columns, [f"{HOSTILE} {i}" for i in range(n)])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a drift whose every name is hostile."""
    old, new = window(0), window(1, new=0.3)
    found = drifted(old, new)
    looks = (None, lambda row: f"{HOSTILE} item {row}" if row % 2 else None)
    told = explain(old, new, found)
    return report.write(tmp_path_factory.mktemp("report"), found, told, old, new, title=HOSTILE, looks=looks)


def test_names_are_text_wherever_they_stand(written: Path) -> None:
    page, words = written.read_text(), written.with_suffix(".md").read_text()
    assert "onerror" in page and "<img src=x" not in page and "\x1b" not in page + words
    assert not re.search(r"(?<!\\)<img", words) and not re.search(r"(?<!\\)\[31m", words)
    rows = [line for line in words.splitlines() if line.startswith("| ")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows if "numbers" in row or "categories" in row}) == 1


def test_page_and_data_say_the_same(written: Path) -> None:
    told = json.loads(written.with_suffix(".json").read_text())
    assert told["verdict"]["alarm"] and told["explanation"]["causes"]
    page = written.read_text()
    assert page.count('<div class="bar"') == len(told["explanation"]["causes"])
    assert page.count("▲ alarm") == sum(f["alarm"] for f in told["verdict"]["findings"])
    assert page.count("<svg") >= 3 and "item 1" in page


def test_without_drift_the_page_says_so(tmp_path: Path) -> None:
    old, new = window(2), window(3)
    found = drifted(old, new)
    assert not found.alarm
    for told in (explain(old, new, found), None):
        page = report.write(tmp_path, found, told, old, new).read_text()
        assert "<h1>No drift</h1>" in page and "▲" not in page
    old, few = window(4, 10), window(5, 10)
    assert report.write(tmp_path, drifted(old, few), explain(old, few), old, few).is_file()


@pytest.mark.parametrize("values", [[np.nan] * 20, [1.0] * 20, [1e300, *[0.0] * 19], ["", "a"] * 10])
def test_any_column_can_be_drawn(values: list[Any]) -> None:
    column = np.array(values, object if isinstance(values[1], str) else np.float64)
    side = Window(np.eye(20, dtype=np.float32), {"x": column})
    drawn = plots.column("x", side, side)
    assert drawn.startswith("<svg") or (drawn == "" and np.isnan(column.astype(float)).all())


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; Debian's package chromium has it")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_and_can_be_read(written: Path, tmp_path: Path, scheme: str) -> None:
    assert CHROMIUM is not None
    browser = Browser(CHROMIUM, tmp_path / "profile")
    try:
        browser.do("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(written.as_uri())
        for width in (1280, 390):
            browser.wide(width)
            assert browser.ask("document.documentElement.scrollWidth") <= width
            scrolled = OUTSIDE.replace("e.offsetParent", "e.offsetParent && !e.closest('.scroll')")
            assert not browser.ask(scrolled), width
        assert browser.ask("document.title") == "fastness: drift"
        for what in ("p.verdict", "section svg text", "td", "p.soft"):
            assert browser.ask(_contrast(what)) >= 4.5, what
        assert not browser.said
    finally:
        browser.close()


def _contrast(what: str) -> str:
    """Return what asks for the contrast (WCAG 2.2) of an element's ink against the ground that is behind it."""
    return f"""(() => {{
      const light = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
      const e = document.querySelector({json.dumps(what)}), style = getComputedStyle(e);
      let up = e;
      while (getComputedStyle(up).backgroundColor === "rgba(0, 0, 0, 0)") up = up.parentElement;
      const ink = light(e.namespaceURI.includes("svg") ? style.fill : style.color);
      const ground = light(getComputedStyle(up).backgroundColor);
      return (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05);
    }})()"""


def saved(path: Path, items: Window) -> Path:
    """Write a window as any model's embeddings."""
    if path.suffix == ".parquet":
        stored.write(path, items)
    else:
        columns = {"source": items.columns["source"].astype(str)}
        np.savez(path, embeddings=items.vectors * 3, ids=np.array(items.ids), **columns)
    return path


def test_embeddings_of_any_model_are_compared(tmp_path: Path) -> None:
    old, new = window(6), window(7, new=0.3)
    found = [
        fs.drift(saved(tmp_path / f"old{end}", old), saved(tmp_path / f"new{end}", new), out=tmp_path / "out")
        for end in (".npz", ".parquet")
    ]
    for one in (
        *found,
        fs.drift(old, new, out=tmp_path / "out"),
        fs.drift(of_window(old, {}), new, out=tmp_path / "out"),
    ):
        assert one.verdict.alarm and one.explanation.causes[0].what.startswith("source == ")
        with pytest.raises(GateRefused, match="drift at level"):
            one.enforce()
    fs.drift(old, old, out=tmp_path / "out").enforce()


def test_data_is_embedded_by_a_bundle_and_shown(bundle: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "old", pictures(40, seed=5))
    write_pictures(tmp_path / "new", (pictures(40, seed=6) * 0.15).astype(np.uint8))
    sides = tmp_path / "old", tmp_path / "new"
    found = fs.drift(*sides, bundle=bundle, label="none", out=tmp_path / "out")
    assert found.verdict.alarm and found.verdict.n == found.verdict.m == 40
    assert found.explanation.causes and found.explanation.left < 0.5
    assert "data:image/png" in found.html.read_text()
    few = fs.drift(*sides, bundle=bundle, label="none", out=tmp_path / "out", examples=False, most=12)
    assert "data:image/png" not in few.html.read_text() and few.verdict.n == 12


def test_of_what_a_head_has_seen_only_the_rest_is_a_reference(photos: Made, tmp_path: Path) -> None:
    """How new items are to a head, and how sure it is of them, is another thing for those that it was fitted on."""
    head = json.loads((photos.bundle / "heads" / "default" / "head.json").read_text())
    found = fs.drift(photos.data, photos.data, bundle=photos.bundle, out=tmp_path / "out", **photos.columns)
    kept = found.verdict.n / found.verdict.m
    assert found.verdict.n < found.verdict.m and head["data"]["held_out_fingerprint"]
    assert kept == pytest.approx(0.25, abs=0.05)


def test_a_bundle_with_its_sketch_is_a_reference(
    bundle: Path, worse: Path, tmp_path: Path, fastness: Callable[..., Ended]
) -> None:
    mine = tmp_path / "run" / "bundle"
    shutil.copytree(bundle, mine)
    write_pictures(tmp_path / "old", pictures(40, seed=5))
    write_pictures(tmp_path / "new", (pictures(40, seed=6) * 0.15).astype(np.uint8))
    fs.sketch(mine, tmp_path / "old", label="none")
    done = fastness("drift", tmp_path / "run", "new", "--label", "none", "--enforce", "--json")
    told = json.loads(done.out)
    assert done.status == 3 and told["verdict"]["alarm"] and Path(tmp_path, told["report"]).is_file()
    said = fastness("drift", mine, "new", "--label", "none", "--floor", "mmd=0.6")
    assert said.status == 0 and "1. " in said.out and "report " in said.out
    with pytest.raises(BadInput, match="its sketch is not of"):
        fs.drift(mine, tmp_path / "new", bundle=worse, label="none", out=tmp_path / "out")


def test_what_cannot_be_compared_is_refused(tmp_path: Path, fastness: Callable[..., Ended]) -> None:
    old = saved(tmp_path / "old.npz", window(8))
    with pytest.raises(BadInput, match="holds no embeddings; name the bundle"):
        fs.drift(old, write_pictures(tmp_path / "pictures", pictures(12))[0].parent)
    done = fastness("drift", old, old, "--floor", "mmd")
    assert done.status == 2 and "--floor mmd: write it like mmd=0.01" in done.err and done.err.count("\n") == 1
    (tmp_path / "bad.npz").write_bytes(b"PK no archive")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no table")
    for name in ("bad.npz", "bad.parquet", "nowhere.npz"):
        done = fastness("drift", old, name)
        assert done.status == 2 and done.err.count("\n") == 1 and name in done.err, done.err
