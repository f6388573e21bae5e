"""Write the tables of measurements from ``benchmarks/results``, the README's and all: ``python docs/table.py``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from fastness.core.files import write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- from benchmarks/results: python docs/table.py -->", "<!-- end of the table -->"
ORDER = (
    "pretrain_throughput",
    "time_to_accuracy",
    "loss_memory",
    "effective_batch",
    "false_negatives",
    "text_encode",
    "sts",
    "few_label_text",
    "tables",
    "emoji",
    "corruptions",
    "evaluation",
    "gate",
    "planted_slices",
    "label_free",
    "exports",
    "runtime",
    "text_serving_cpu",
    "image_serving_cpu",
    "small_image",
    "vector_index",
    "registry",
    "serving",
    "switching",
    "release",
    "drift",
    "online_drift",
    "explain",
    "canary",
    "watching",
    "week",
    "incidents",
    "features",
    "resume",
    "index_scale",
    "mutants",
)
# Of sixty comparisons of models on tables those that answer the question; all are in the result file.
SHOWN = {
    "tables": ("pretrained, logistic against untrained, logistic", "pretrained, logistic against gradient boosting")
}
HEADLINE_BEGIN, HEADLINE_END = "<!-- the headline: python docs/table.py -->", "<!-- end of the headline -->"
LABELS = ("all", "10 %", "1 %")
FIGURES = (
    "clean", "corruption mean", "corruption worst", "ImageNet shift", "near OOD AUROC", "far OOD AUROC", "ECE",
)  # fmt: skip
LOWER_IS_BETTER = ("ECE",)
COUNTED = {"holds": "hold", "**falls short**": "fall short", "stated": "are stated", "not measured": "are not measured"}
WORDS = {True: "holds", False: "**falls short**", None: "not measured"}


def headline(result: dict[str, Any]) -> str:
    """Return what ways to train come to: means, and whether they surely differ from supervised training."""
    figures = [name for name in FIGURES if name in result["rows"][-1]]
    lines = [f"| labels | trained by | {' | '.join(figures)} |", "|---|---|" + "--:|" * len(figures)]
    for row in sorted(result["rows"], key=lambda row: LABELS.index(row["labels"])):
        cells = [f"{row[figure][0]:.1f}{_mark(row, figure)}" for figure in figures]
        lines.append(f"| {row['labels']} | {row['way']} | {' | '.join(cells)} |")
    seeds = sorted({row["seeds"] for row in result["rows"]})
    machine = result["hardware"]
    said = (
        f"In points, means over {' or '.join(map(str, seeds))} seeds; ▲ surely better, ▼ surely worse than supervised"
    )
    return "\n".join(
        [*lines, "", f"{said} with as many labels (95 %, in pairs). {result['protocol']}; {machine['cpu']}."]
    )


def _mark(row: dict[str, Any], figure: str) -> str:
    _, low, high = row.get(f"{figure} less supervised", (0, 0, 0))
    if figure in LOWER_IS_BETTER:
        low, high = -high, -low
    return " ▲" if low > 0 else " ▼" if high < 0 else ""


def between(text: str, begin: str, end: str, new: str) -> str:
    """Return the text with ``new`` between two marks."""
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{new}\n{end}{rest.partition(end)[2]}"


def rows() -> tuple[list[list[str]], list[str]]:
    """Return benchmark, question, asked, measured and answer of every ask, and the machines."""
    found, machines = [], set()
    for name in ORDER:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        machine = result["hardware"]
        machines.add(f"{machine['cpu']}, {machine['cores']} cores" + (", AMX" if machine["amx_bf16"] else ""))
        for ask in result["asks"]:
            if not ask["name"].endswith(SHOWN.get(name, "")):
                continue
            measured = f"{ask['measured']:.2f}" if isinstance(ask["measured"], float) else str(ask["measured"])
            word = WORDS[ask["holds"]]
            if ask["holds"] is None and measured not in ("-", "not finished"):
                word = "stated"
            found.append([f"`{name}`", ask["name"], str(ask["asked"]), measured, word])
    return found, sorted(machines)


def table(some: list[list[str]]) -> str:
    """Return rows as Markdown."""
    lines = ["| `make bench NAME=` | what | asked | measured | |", "|---|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in some)])


def main() -> None:
    """Render the tables."""
    every, machines = rows()
    said = f"Measured on: {'; '.join(machines)}; shared and noisy."
    page = ROOT / "docs" / "measured.md"
    write_text(page, between(page.read_text(), BEGIN, END, f"{table(every)}\n\n{said}"))
    firsts = {row[0]: row for row in reversed(every)}  # the first ask of each benchmark
    counts = Counter(row[-1] for row in every)
    words = ", ".join(f"{counts[word]} {said}" for word, said in COUNTED.items())
    page = ROOT / "README.md"
    text = between(
        page.read_text(),
        BEGIN,
        END,
        f"{table([firsts[name] for name in sorted(firsts, key=_place)])}\n\n"
        f"Of {len(every)} figures {words}: [all of them](docs/measured.md).",
    )
    result = RESULTS / "headline.json"
    if result.exists():
        text = between(text, HEADLINE_BEGIN, HEADLINE_END, headline(json.loads(result.read_text())))
    write_text(page, text)


def _place(name: str) -> int:
    return ORDER.index(name.strip("`"))


if __name__ == "__main__":
    main()
