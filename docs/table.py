"""Write the README's table of measurements from ``benchmarks/results/*.json``: ``python docs/table.py``."""

from __future__ import annotations

import json
from pathlib import Path

from fastness.core.files import write_text

ROOT = Path(__file__).resolve().parent.parent
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
    "headline",
    "corruptions",
    "evaluation",
    "gate",
    "planted_slices",
    "resume",
    "index_scale",
)
# Of sixty comparisons of models on tables those that answer the question; all are in the result file.
SHOWN = {
    "tables": ("pretrained, logistic against untrained, logistic", "pretrained, logistic against gradient boosting")
}
WORDS = {True: "holds", False: "**falls short**", None: "not measured"}


def main() -> None:
    """Render the table."""
    lines = ["| `make bench NAME=` | what | asked | measured | |", "|---|---|---|---|---|"]
    machines = set()
    for name in ORDER:
        path = ROOT / "benchmarks" / "results" / f"{name}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        machine = result["hardware"]
        machines.add(f"{machine['cpu']}, {machine['cores']} cores" + (", AMX" if machine["amx_bf16"] else ""))
        for ask in result["asks"]:
            if not ask["name"].endswith(SHOWN.get(name, "")):
                continue
            measured = f"{ask['measured']:.2f}" if isinstance(ask["measured"], float) else ask["measured"]
            word = WORDS[ask["holds"]]
            if ask["holds"] is None and measured not in ("-", "not finished"):
                word = "stated"
            lines.append(f"| `{name}` | {ask['name']} | {ask['asked']} | {measured} | {word} |")
    table = "\n".join([*lines, "", f"Measured on: {'; '.join(sorted(machines))}; shared and noisy."])
    page = ROOT / "README.md"
    before, _, rest = page.read_text().partition(BEGIN)
    write_text(page, f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
