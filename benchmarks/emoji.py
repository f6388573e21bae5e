"""Pictures and words in one space: trained on two vendors' emoji, tested on the third vendor's drawings.

The words of an emoji are its name and keywords. Every emoji of the tested vendor was seen as drawn by the others, never
by this one; so the question is whether the encoder looks past the vendor's style. A second run leaves the words out and
learns from the two vendors' drawings alone (same emoji, other vendor).

Contact sheets of ten plain-language queries are written to ``benchmarks/results/emoji/``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

import common
import fastness as fs
from fastness.metrics.retrieval import best_ranks

FOLDER = common.WORK / "emoji"
HELD_OUT = "fluent3d"
COLUMNS = {"image": "image", "text": "words", "group": "who", "label": "category", "split": "part"}
QUERIES = (
    "red heart", "a happy dog", "flag with stars", "something to eat for breakfast", "angry face", "train station",
    "musical instrument", "rainy weather", "woman doctor", "christmas tree",
)  # fmt: skip


def prepared() -> Path:
    """Write the emoji with a column of words and one of parts; return the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = FOLDER / "emoji.parquet"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(common.DATA / "emoji" / "emoji.parquet")
    rows = table.select(["vendor", "emoji_id", "name", "keywords"]).to_pylist()
    words = [" ".join(dict.fromkeys(re.findall(r"\w+", f"{r['name']} {r['keywords'] or ''}".lower()))) for r in rows]
    table = table.append_column("words", pa.array(words))
    table = table.append_column("who", pa.array([str(r["emoji_id"]) for r in rows]))
    table = table.append_column("part", pa.array(["test" if r["vendor"] == HELD_OUT else "train" for r in rows]))
    pq.write_table(table, path)
    return path


def train(name: str, data: Path, columns: dict[str, Any], **recipe: Any) -> Path:
    """Train one row unless it is there; return its folder."""
    folder = FOLDER / name
    if not (folder / "bundle" / "bundle.json").exists():
        fs.train(data, columns=columns, out=folder, **recipe)
    return folder


def between_vendors(folder: Path, data: Path) -> dict[str, float]:
    """Return recall of the same emoji among one other vendor's drawings, asked with the held-out vendor's."""
    bundle = fs.load(folder)
    opened = fs.open_data(data, image="image", label="vendor", group="who", split="none")
    embedded = bundle.embed_dataset(opened)
    vendor = np.array(opened.class_names)[embedded.dataset.labels]
    keys = embedded.dataset.manifest.groups
    asking, answering = vendor == HELD_OUT, vendor == "google"
    wanted, offered = keys[asking], keys[answering]
    found, among = embedded.vectors[asking], embedded.vectors[answering]
    ranks = best_ranks(found, among, lambda places: wanted[places, None] == offered)
    return {f"other vendor recall@{k}": round(float((ranks <= k).mean()), 4) for k in (1, 5, 10)}


def sheets(folder: Path, data: Path) -> None:
    """Write a contact sheet for each query over the held-out vendor's drawings."""
    out = common.RESULTS / "emoji"
    out.mkdir(parents=True, exist_ok=True)
    collection = fs.open_data(data, image="image", split="part").split("test")
    for query in QUERIES:
        answers = fs.search(folder, collection, query, k=11)
        answers.contact_sheet(out / f"{query.replace(' ', '-')}.png")


def main() -> None:
    """Train what is missing, measure, and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    data = prepared()
    budget = "1m" if quick else "15m"
    words = train("words" + ("-quick" if quick else ""), data, COLUMNS, budget=budget)
    report = fs.evaluate(words, data, checks=["retrieval", "zero_shot"], **COLUMNS)
    rows: list[dict[str, Any]] = [
        {"row": m.name, "value": round(m.value, 4), "low": round(m.low, 4), "high": round(m.high, 4), "n": m.n}
        for m in report.evidence.measurements
    ]
    alone = {"image": "image", "group": "who", "label": "none", "split": "part"}
    views = train("views" + ("-quick" if quick else ""), data, alone, method="supcon", budget=budget)
    rows += [
        {"row": f"{name}: {k}", "value": v}
        for name, folder in (("image and words", words), ("drawings alone", views))
        for k, v in between_vendors(folder, data).items()
    ]
    sheets(words, data)
    asks = [common.ask(str(row["row"]), "to be stated", str(row["value"]), None) for row in rows]
    common.save(
        "emoji" + ("_quick" if quick else ""),
        rows,
        asks,
        protocol=f"1,852 emoji or so of {HELD_OUT}, never seen; cosine; ties count against",
    )


if __name__ == "__main__":
    main()
