"""A new loss is one file and one line of registration, and is trained from the command line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fastness.core.registry import Registry

LOSS = '''
import torch
from fastness.core.options import Option
from fastness.losses import LOSSES, Loss
from fastness.losses.stream import log_mass


@LOSSES.register("max-margin")
class MaxMargin(Loss):
    """the nearest negative, softly, may not come nearer than the positives less a gap"""

    options = {"gap": Option(0.2, 0, 2, help="in cosine")}

    def forward(self, pairs, scale):
        hardest = log_mass(scale * pairs.anchors, pairs.candidates, pairs.negatives) / scale
        return (hardest - pairs.positive_means(1.0) + self.settings["gap"]).clamp_min(0).mean()
'''


def test_a_new_loss_is_one_file_and_is_trained_from_the_command_line(tmp_path):
    (tmp_path / "max_margin.py").write_text(LOSS)
    start = "import sys, max_margin; from fastness.cli.main import main; sys.argv[0] = 'fastness'; main()"

    def fastness(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", start, *words], cwd=tmp_path, capture_output=True, text=True)

    listed = fastness("methods")
    assert "max-margin" in listed.stdout and "the nearest negative, softly" in listed.stdout
    small = ["--width", "4", "--size", "16", "--batch-size", "16", "--steps", "12", "--lr", "1e-9", "--json"]
    losses = []
    for gap in (0.3, 0.6):
        own = ["--loss", "max-margin", "--option", f"gap={gap}", "--out", f"run-{gap}"]
        done = fastness("train", "digits", *small, *own)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["recipe"]["options"] == {"gap": gap, "loss": "max-margin"}
        events = [json.loads(line) for line in (tmp_path / f"run-{gap}" / "events.jsonl").read_text().splitlines()]
        losses.append(next(event["loss"] for event in events if event.get("loss") is not None))
    # Nothing is learnt at such a rate, and no pair keeps the gap yet: the losses are apart by what the gaps are.
    assert losses[1] - losses[0] == pytest.approx(0.3, abs=0.01)
    wrong = fastness("train", "digits", *small, "--loss", "max-margin", "--option", "gap=3", "--out", "other")
    assert wrong.returncode == 2 and "gap = 3" in wrong.stderr and len(wrong.stderr.splitlines()) == 1


def test_a_name_that_is_taken_or_never_registered_is_said() -> None:
    things: Registry[type] = Registry("thing", "fastness.core", {"absent": "errors"})

    def defined(place: str) -> type:
        return things.register("one")(type("One", (), {"__module__": place}))

    first = defined("a")
    again = defined("a")  # as when the cell of a notebook is run twice
    assert first is not again and things.get("one") is again
    with pytest.raises(ValueError, match="two things are registered as thing 'one'"):
        defined("b")
    with pytest.raises(LookupError, match=r"fastness.core.errors registers no thing 'absent'"):
        things.get("absent")
