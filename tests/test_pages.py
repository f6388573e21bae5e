"""The pages, opened in a browser: nothing is logged as an error and nothing is wider than the window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fastness as fs

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here; Debian's package chromium has it")
WIDTHS = (1280, 390)
CHECKS = [
    "knn", "linear", "calibration", "slices", "neighbours", "clustering", "geometry", "selective", "groups", "ood",
    "stability", "corruption",
]  # fmt: skip
# Frames, as a window is never narrower than 500 pixels. What scrolls by itself may be wider than it shows.
FRAME = """<body style="margin:0">{frames}<pre id="found"></pre><script>
window.onload = () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    const outside = [...page.body.querySelectorAll("*")].filter(e => {{
      if (e.getBoundingClientRect().right <= root.clientWidth + 1) return false;
      for (let up = e.parentElement; up; up = up.parentElement)
        if (["auto", "scroll", "hidden"].includes(getComputedStyle(up).overflowX)) return false;
      return true;
    }});
    return {{shown: root.clientWidth, wide: root.scrollWidth, outside: outside.map(e => e.tagName).slice(0, 5),
             height: root.scrollHeight, words: page.body.innerText.length,
             broken: [...page.images].filter(i => !i.naturalWidth).length}};
  }});
  document.getElementById("found").textContent = JSON.stringify(found);
}};</script>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return reports on pictures, with all that they can show, and on texts without examples, a comparison, a bench."""
    folder = tmp_path_factory.mktemp("pages")
    part = fs.open_data("digits")
    rows = np.concatenate([np.flatnonzero(part.manifest.splits == s)[:200] for s in ("train", "test")])
    data = part.select(rows).described(scanner=[f"a scanner with a long name, number {i % 3}" for i in range(400)])
    recipe = {"width": 4, "size": 16, "batch_size": 32, "quiet": True}
    bundles = [fs.train("digits", out=folder / f"run{i}", steps=20, seed=i, **recipe).bundle for i in range(2)]
    outside = {"ood": [noise(folder)], "sensitive": ["scanner"]}
    every = fs.evaluate(bundles[0], data, CHECKS, out=folder / "pictures", **outside)
    other = fs.evaluate(bundles[1], data, CHECKS[:4], out=folder / "other")
    table = {"text": [f"{'good' if i % 2 else 'bad'} thing number {i}" for i in range(120)], "label": [0, 1] * 60}
    told = {"text": "text", "label": "label"}
    encoder = fs.train(table, encoder="static", columns=told, out=folder / "run", steps=5, quiet=True)
    words = fs.evaluate(encoder.bundle, fs.open_data(table, **told), CHECKS[:8], out=folder / "texts", examples=False)
    compared = fs.compare(every.evidence.folder, other.evidence.folder, out=folder / "compared")
    few = {"batches": [1], "calls": 4, "repeats": 1, "corrupted": 2, "target": "p99<20ms,size<10MB"}
    forms = fs.bench(bundles[0], data, edge="1core,300MB", cloud=True, forms=["onnx"], out=folder / "bench", **few)
    pages = {"pictures": every.html, "texts": words.html, "comparison": compared.html}
    return pages | {"forms": forms.folder / "bench.html"}


def noise(folder: Path) -> Path:
    """Write pictures of nothing."""
    np.save(folder / "noise.npy", np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8))
    return folder / "noise.npy"


@pytest.mark.parametrize("name", ["pictures", "texts", "comparison", "forms"])
def test_a_page_in_a_browser(pages: dict[str, Path], name: str, tmp_path: Path) -> None:
    frames = "".join(f'<iframe src="{pages[name].as_uri()}" width="{w}" height="900"></iframe>' for w in WIDTHS)
    (tmp_path / "frames.html").write_text(FRAME.format(frames=frames))
    assert BROWSER is not None
    ended = subprocess.run(
        [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=20000",
         "--window-size=1700,1000", (tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    said = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    text = re.search(r'<pre id="found">(.*)</pre>', ended.stdout)
    assert text is not None, ended.stdout[-500:]
    for width, found in zip(WIDTHS, json.loads(text[1]), strict=True):
        assert width - 20 <= found["shown"] <= width and found["words"] > 500 and found["height"] > 900
        assert found["wide"] <= found["shown"] and not found["outside"] and not found["broken"], found
