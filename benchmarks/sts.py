"""Sentence similarity on STS-B test: MiniLM as it is and tuned, and encoders trained from nothing without labels.

Everything was chosen on STS-B dev. The unlabelled sentences are Multi30k's English captions and those of SICK, SST-2,
IMDB, Banking77 and CLINC150; every sentence that also stands in STS-B dev or test is left out of training.

Finished runs are kept in ``.bench/sts``.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import common
import fastness as fs
from fastness.core.files import write_json, write_text

FOLDER = common.WORK / "sts"
COLUMNS = {"text": "c0,c1", "score": "c2"}


def _plain(text: str) -> str:
    """Return what is left of a sentence when case, signs and blanks do not count."""
    return " ".join(re.findall(r"\w+", text.lower()))


def stsb(part: str) -> Path:
    """Return the file of a part of STS-B."""
    return common.DATA / "text" / "stsb" / f"stsb-en-{part}.csv"


def forbidden() -> set[str]:
    """Return the sentences of STS-B dev and test."""
    found = set()
    for part in ("dev", "test"):
        with stsb(part).open(encoding="utf-8", newline="") as handle:
            found |= {_plain(cell) for row in csv.reader(handle) for cell in row[:2]}
    return found


def unlabelled() -> tuple[Path, int]:
    """Write the unlabelled sentences, each once; return the file and how many were left out for standing in STS-B."""
    text = common.DATA / "text"
    sentences = []
    for path in sorted((text / "multi30k").glob("*.en.txt")):
        sentences += path.read_text(encoding="utf-8").splitlines()
    for path in sorted((text / "sick").glob("SICK_*.txt")):
        with path.open(encoding="utf-8") as handle:
            sentences += [cell for row in csv.reader(handle, delimiter="\t") for cell in row[1:3]][2:]
    with (text / "banking77" / "train.csv").open(encoding="utf-8", newline="") as handle:
        sentences += [row[0] for row in csv.reader(handle)][1:]
    clinc = json.loads((text / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    sentences += [row[0] for row in clinc["train"]]
    for path in sorted((text / "sst2").glob("train.tsv")):
        sentences += [line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    with gzip.open(text / "imdb_20k.jsonl.gz", "rt", encoding="utf-8") as handle:
        for line in handle:
            review = str(json.loads(line).get("text", ""))
            sentences += [
                s for s in re.split(r"(?<=[.!?])\s+", review.replace("<br />", " ")) if 3 < s.count(" ") < 30
            ][:6]
    refused, seen, kept, left_out = forbidden(), set(), [], 0
    for sentence in sentences:
        key = _plain(sentence)
        if key in refused:
            left_out += 1
        elif key and key not in seen:
            seen.add(key)
            kept.append(" ".join(sentence.split()))
    path = FOLDER / "unlabelled.txt"
    write_text(path, "\n".join(kept) + "\n")
    return path, left_out


def spearman(bundle: Any, part: str) -> dict[str, float]:
    """Return Spearman's correlation on a part of STS-B with its interval."""
    report = fs.evaluate(bundle, stsb(part), checks=["similarity"], **COLUMNS)
    found = report.evidence.get("similarity.spearman")
    assert found is not None
    return {"value": round(found.value, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


# Each row: what it is, and the command lines of its training, of which the one that is best on dev counts. Each from
# nothing fits into 20 minutes of one core.
TUNED = "{train} --text c0,c1 --score c2 --init {minilm} --batch-size 32"
STATIC = "{unlabelled} --encoder static"
RUNS: dict[str, list[str]] = {
    "static vectors, from nothing": [
        f"{STATIC} {more}"
        for more in (
            "--steps 400 --view delete=0.5 --option projection=128",
            "--steps 1500 --view delete=0.5 --option projection=128",
            "--steps 1500 --view delete=0.3 --option projection=128",
            "--steps 1500 --view delete=0.5 --option projection=0",
            "--steps 1500 --view delete=0.3 --option projection=0",
            "--steps 6000 --view delete=0.5 --option projection=0",
        )
    ],
    "transformer, from nothing": [
        "{unlabelled} --encoder transformer --steps 900 --view delete=0.3 --option projection=0",
    ],
    "MiniLM tuned on STS-B train": [
        f"{TUNED} {more}"
        for more in ("--epochs 1 --lr 2e-5", "--epochs 1 --lr 5e-5", "--epochs 1 --lr 1e-4", "--epochs 4 --lr 5e-5")
    ],
}


def train(name: str, words: list[str]) -> Path:
    """Train once unless it is there; return the folder."""
    folder = FOLDER / re.sub(r"\W+", "-", name)
    if not (folder / "bundle" / "bundle.json").exists():
        command = [str(Path(sys.executable).with_name("fastness")), "train", *words, "--out", str(folder)]
        subprocess.run(command, check=True)
    return folder


def cpu_seconds(folder: Path) -> float:
    """Return what a run's training took of the processor."""
    end = json.loads((folder / "events.jsonl").read_text("utf-8").splitlines()[-1])
    return float(end["cpu_seconds"])


def main() -> None:
    """Run what is missing and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines, left_out = unlabelled()
    known = {"unlabelled": str(lines), "train": str(stsb("train")), "minilm": str(common.minilm_bundle())}
    rows = [
        {"row": "MiniLM as it is", "test": spearman(known["minilm"], "test"), "dev": spearman(known["minilm"], "dev")}
    ]
    for name, candidates in RUNS.items():
        folders = {}
        for number, line in enumerate(candidates[:1] if quick else candidates):
            if quick:
                line = re.sub(r"--(steps|epochs) \S+", "--steps 20", line)
            folder = train(f"{name} {number}{' quick' * quick}", [word.format(**known) for word in line.split()])
            folders[folder] = {"line": line, **spearman(folder, "dev"), "cpu_seconds": cpu_seconds(folder)}
        best = max(folders, key=lambda folder: folders[folder]["value"])
        rows.append(
            {
                "row": name,
                "test": spearman(best, "test"),
                "dev": folders[best],
                "all on dev": list(folders.values()),
            }
        )
        if "nothing" in name:
            fresh = fs.load(best)
            fresh.encoder = fresh.encoder.untrained().eval()
            rows.append({"row": f"{name}, untrained", "test": spearman(fresh, "test"), "dev": spearman(fresh, "dev")})
    found = {row["row"]: row["test"]["value"] for row in rows}
    asks = [
        common.ask(
            "MiniLM as shipped",
            "0.820",
            f"{found['MiniLM as it is']:.4f}",
            abs(found["MiniLM as it is"] - 0.82) < 0.001,
        ),
        common.ask(
            "tuned on STS-B train",
            "> 0.84",
            f"{found['MiniLM tuned on STS-B train']:.4f}",
            found["MiniLM tuned on STS-B train"] > 0.84,
        ),
    ]
    write_json(FOLDER / "rows.json", rows)
    common.save(
        "sts" + ("_quick" if quick else ""),
        rows,
        asks,
        protocol=f"Spearman; {left_out} unlabelled sentences left out because they stand in STS-B dev or test",
    )


if __name__ == "__main__":
    main()
