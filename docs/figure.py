"""Write the README's picture from the evidence of the last demo: ``python docs/figure.py``."""

from __future__ import annotations

from pathlib import Path

from fastness.core.files import write_text
from fastness.evaluation import evidence, figures

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    newest = max((ROOT / "runs/demo/digits/bundle/evidence").iterdir())
    svg = figures.few_label(evidence.read(newest))
    write_text(ROOT / "docs" / "few_label.svg", svg)
    print(f"docs/few_label.svg from {newest.relative_to(ROOT)}")
