"""Kill a training run at random moments; it must end with the weights of one that was never killed.

Each trial starts ``fastness train`` with a checkpoint after every step, sends SIGKILL at a random moment
(half of the trials while a checkpoint's temporary file is there), and runs the same command until it ends. The
weights file must be the uninterrupted run's, byte for byte.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
from fastness.core.files import sha256_file

COMMAND = [
    str(Path(sys.executable).with_name("fastness")), "train", "digits", "--steps", "40", "--width", "8", "--batch-size",
    "64", "--checkpoint-every", "0.001s", "--json",
]  # fmt: skip
FOLDER = common.WORK / "resume"


def start(method: str, out: Path) -> subprocess.Popen[bytes]:
    """Start, or go on with, a run."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*COMMAND, "--method", method, "--out", str(out)], stdout=quiet, stderr=quiet)


def trial(number: int, method: str, reference: str, length: float) -> dict[str, Any]:
    """Kill one run once or twice, let it end, and compare."""
    out = FOLDER / f"trial-{number}"
    shutil.rmtree(out, ignore_errors=True)
    generator = random.Random(number)
    writing = number % 2 == 1
    caught = 0
    for _ in range(2):
        process = start(method, out)
        checkpoint = out / "checkpoint.safetensors"
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.4 * length))
        while writing and process.poll() is None and not list(out.glob(".checkpoint*.tmp")):
            pass
        caught += bool(list(out.glob(".checkpoint*.tmp"))) and process.poll() is None
        process.kill()
        process.wait()
    status = start(method, out).wait()
    same = status == 0 and sha256_file(out / "bundle" / "weights.safetensors") == reference
    shutil.rmtree(out, ignore_errors=True)
    return {"trial": number, "method": method, "kills": 2, "while_writing": caught, "identical": same}


def main() -> None:
    """Run the trials and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = []
    trials = 4 if quick else 20
    for method in ("simclr",) if quick else ("simclr", "moco"):
        whole = FOLDER / f"whole-{method}"
        shutil.rmtree(whole, ignore_errors=True)
        assert start(method, whole).wait() == 0
        events = (whole / "events.jsonl").read_text().splitlines()
        import json

        times = [json.loads(line)["time"] for line in events]
        reference = sha256_file(whole / "bundle" / "weights.safetensors")
        mine = range(trials) if quick else range(0 if method == "simclr" else 10, 10 if method == "simclr" else 20)
        for number in mine:
            rows.append(trial(number, method, reference, times[-1] - times[0]))
            print(rows[-1], flush=True)
    good = sum(row["identical"] for row in rows)
    writing = sum(row["while_writing"] for row in rows)
    asks = [
        common.ask(
            "resumed weights equal the uninterrupted run's bit for bit",
            f"{trials} of {trials}",
            f"{good} of {len(rows)}, {writing} kills while the checkpoint was being written",
            good == len(rows) == trials and writing > 0,
        )
    ]
    common.save("resume" + ("_quick" if quick else ""), rows, asks, train=" ".join(COMMAND[1:]))


if __name__ == "__main__":
    main()
