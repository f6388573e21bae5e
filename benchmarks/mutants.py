"""Would the tests notice? Small mistakes put into the losses, the metrics, the evaluation and the training loop.

The suite runs once in a copy of the project under coverage, which says which tests run which line. Then each mistake,
drawn at random by Cosmic Ray, is put into a copy, and the tests that run its line are run there, the quickest first,
until one fails. A mistake that no test notices, or that changes nothing that could be noticed, survives; survivors
are listed. The share of lines that the suite runs is measured on the way.

Resumable: the map of the tests and each mistake leave a file in ``.bench/mutants``, in a folder of the source's hash.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import common
from fastness.core.files import write_json

ROOT = common.HERE.parent
ROOMS = ("losses", "metrics", "evaluation", "training")
COUNT, QUICK, SEED = 200, 10, 0
AT_MOST = 30.0  # seconds of tests a mistake, as they took in the whole suite
Tests = list[tuple[float, str]]


def source() -> str:
    """Return a short hash of package and tests."""
    found = hashlib.sha256()
    for path in sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").glob("*.py")]):
        found.update(path.read_bytes())
    return found.hexdigest()[:10]


def copied(place: Path) -> Path:
    """Return a fresh copy of the project."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
    return place


def surroundings(place: Path) -> dict[str, Any]:
    """Return how tests run in a copy: its package comes before the installed one."""
    further = {
        "PYTHONPATH": f"{place / 'src'}{os.pathsep}{common.PEERS}",
        "OMP_NUM_THREADS": "1",
        "FASTNESS_DATA": str(common.DATA),
    }
    return {"cwd": place, "env": {**os.environ, **further}}


def tests_of_lines(folder: Path, place: Path) -> dict[str, dict[int, Tests]]:
    """Return by file and line the tests that run it, with their seconds; line 0: all that run any line of the file."""
    path = folder / "lines.json"
    if not path.exists():
        report, around = folder / "suite.xml", surroundings(place)
        for words in (
            ["run", "-m", "pytest", "-p", "contexts", f"--junitxml={report}"],
            ["combine"],
            ["json", "-o", folder / "share.json"],
        ):
            subprocess.run([sys.executable, "-m", "coverage", *map(str, words)], check=True, **around)
        write_json(path, _lines(place / ".coverage", report, place))
    return {name: {int(n): found for n, found in of.items()} for name, of in json.loads(path.read_text()).items()}


def _lines(data: Path, report: Path, place: Path) -> dict[str, dict[int, Tests]]:
    import coverage

    seconds: dict[str, float] = defaultdict(float)
    for case in ElementTree.parse(report).iter("testcase"):
        module, name = str(case.get("classname")).rpartition(".")[2], str(case.get("name")).partition("[")[0]
        seconds[f"{module}.{name}"] += float(case.get("time") or 0)
    read = coverage.CoverageData(str(data))
    read.read()
    found: dict[str, dict[int, Tests]] = {}
    for file in read.measured_files():
        name = str(Path(file).relative_to(place))
        by_line = {line: _timed(tests, seconds) for line, tests in read.contexts_by_lineno(file).items()}
        whole = {test for tests in by_line.values() for test in tests}
        found[name] = {0: sorted(whole), **by_line}
    return found


def _timed(contexts: list[str], seconds: dict[str, float]) -> Tests:
    names = {".".join(context.split(".")[-2:]) for context in contexts if context}
    return sorted((seconds[name], name) for name in names if name in seconds)


def drawn(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return the mistakes."""
    path = folder / f"drawn-{count}.json"
    if not path.exists():
        files = [file for room in ROOMS for file in sorted((ROOT / "src" / "fastness" / room).rglob("*.py"))]
        command = [common.peer_python("mutants"), common.PEERS / "mutants_make.py", count, SEED, path, *files]
        subprocess.run(list(map(str, command)), check=True)
    return list(json.loads(path.read_text()))


def chosen(mutant: dict[str, Any], lines: dict[str, dict[int, Tests]]) -> list[str]:
    """Return the tests to run: the quickest that run the line; those of the file where it runs on import alone."""
    of_file = lines.get(str(Path(mutant["file"]).relative_to(ROOT)), {})
    tests, spent = [], 0.0
    for seconds, name in of_file.get(mutant["line"]) or of_file.get(0, []):
        if tests and spent + seconds > AT_MOST:
            break
        spent += seconds
        module, _, test = name.partition(".")
        tests.append(f"tests/{module}.py::{test}")
    return tests


def judged(mutant: dict[str, Any], tests: list[str], place: Path) -> dict[str, Any]:
    """Put a mistake into a copy of the package, run tests there, take it out again, and say what came of it."""
    file = Path(mutant["file"]).relative_to(ROOT)
    before = (ROOT / file).read_text()
    changed = difflib.unified_diff(before.splitlines(), mutant["code"].splitlines(), n=0, lineterm="")
    diff = [line for line in changed if line[0] in "+-" and not line.startswith(("+++", "---"))]
    found = {"file": str(file), "line": mutant["line"], "diff": diff, "tests": len(tests), "by": ""}
    if not tests:
        return {**found, "killed": False}
    (place / file).write_text(mutant["code"])
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", *tests]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=10 * AT_MOST, **surroundings(place))
        killed, said = run.returncode != 0, [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
        found["by"] = said[0] if said else ""
    except subprocess.TimeoutExpired:
        killed, found["by"] = True, "did not end"
    finally:
        (place / file).write_text(before)
    return {**found, "killed": killed}


def main() -> None:
    """Judge what is missing, two at a time, and write the result file."""
    quick = common.arguments(__doc__ or "").quick
    folder = common.WORK / "mutants" / source()
    folder.mkdir(parents=True, exist_ok=True)
    copies = [copied(folder / f"copy-{number}") for number in range(len(os.sched_getaffinity(0)))]
    lines = tests_of_lines(folder, copies[0])
    mutants = drawn(folder, QUICK if quick else COUNT)
    places = Queue[Path]()
    for place in copies:
        places.put(place)

    def judge(numbered: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        path = folder / f"{len(mutants)}-{numbered[0]}.json"
        if not path.exists():
            place = places.get()
            try:
                write_json(path, judged(numbered[1], chosen(numbered[1], lines), place))
            finally:
                places.put(place)
        found = dict(json.loads(path.read_text()))
        print(
            "killed  " if found["killed"] else "SURVIVED", found["file"], found["line"], *found["diff"][-1:], flush=True
        )
        return found

    with ThreadPoolExecutor(places.qsize()) as pool:
        found = list(pool.map(judge, enumerate(mutants)))
    rows = [
        {"room": room, "mistakes": len(mine), "noticed": sum(row["killed"] for row in mine)}
        for room in ROOMS
        if (mine := [row for row in found if f"/{room}/" in row["file"]])
    ]
    noticed = sum(row["killed"] for row in found)
    share = noticed / len(found)
    run = json.loads((folder / "share.json").read_text())["totals"]["percent_covered"]
    asks = [
        common.ask("mistakes that a test notices", ">= 80 %", f"{noticed} of {len(found)}", share >= 0.8),
        common.ask("lines of the package that a test runs", ">= 90 %", f"{run:.1f} %", run >= 90),
    ]
    survivors = [row for row in found if not row["killed"]]
    name = "mutants" + ("_quick" if quick else "")
    common.save(name, rows, asks, protocol="Cosmic Ray, a place as likely as another", survivors=survivors)


if __name__ == "__main__":
    main()
