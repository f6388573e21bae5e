"""Training: resuming is exact, batches are functions of the seed, budgets become steps, collapse is noticed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import fastness as fs
from conftest import on_pictures, required
from fastness.core.errors import BadInput
from fastness.core.files import atomic_path, sha256_file
from fastness.core.recipe import Recipe
from fastness.data.cache import decoded
from fastness.encoders.image import ImageEncoder, ImageSpec
from fastness.methods import METHODS
from fastness.metrics import geometry
from fastness.metrics.knn import knn_predict
from fastness.training import checkpoint, collapse, plan
from fastness.training.assembly import assemble, fitted, make_loop
from fastness.training.batches import Batches, epoch_order, positions
from fastness.training.collapse import measure
from fastness.training.events import Events
from fastness.training.fit import fit
from fastness.training.loop import _RESERVE, Loop, Settings
from fastness.training.online_knn import OnlineKNN
from fastness.training.optimizers import make_optimizer
from fastness.training.progress import Display
from fastness.training.schedule import learning_rate

TINY = {"steps": 6, "width": 4, "size": 16, "batch_size": 16, "encoder": "resnet18"}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    return decoded(fs.open_data("digits").split("train").select(np.arange(200)), 16)


def with_scores(images):
    """Return the same items, most of them with a score."""
    scores = np.random.default_rng(0).random(len(images.dataset.whole))
    scores[::7] = np.nan
    whole = dataclasses.replace(images.dataset.whole, scores=scores)
    return dataclasses.replace(images, dataset=dataclasses.replace(images.dataset, whole=whole))


def assembled(images, recipe: Recipe):
    """Return the method of a complete recipe at its start, and its views."""
    _, encoder = fitted(recipe, images.dataset)
    return assemble(images, recipe, encoder)


def weights(method: str, images, folder: Path, stop_at: int | None = None, **changes) -> dict[str, torch.Tensor]:
    """Train in a folder; with ``stop_at``, save there, throw everything away and go on from the file."""
    if "scores" in METHODS.get(method).needs:
        images = with_scores(images)
    asked = Recipe.parse({"method": method, "options": required(method), **TINY, **changes})
    recipe = plan.complete(asked, images.dataset, CPU)

    def fresh():
        module, views = assembled(images, recipe)
        return make_loop(module, views, images, recipe, CPU, folder, Settings())

    loop = fresh()
    loop.fix_length()
    source = loop.source(0, loop.total)
    while loop.step < loop.total:
        loop.update(source, loop.step, loop.total)
        loop.step += 1
        if loop.step == stop_at:
            loop.save()
            source.close()
            loop = fresh()
            loop.resume()
            source = loop.source(loop.step, loop.total)
    return loop.method.state_dict()


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [(method, name) for method in on_pictures() for name in ("sgd", "adamw")] + [("simclr", "lars")],
)
def test_resuming_gives_the_uninterrupted_weights_bit_for_bit(method, optimizer, images, tmp_path):
    whole = weights(method, images, tmp_path / "a", optimizer=optimizer)
    resumed = weights(method, images, tmp_path / "b", stop_at=3, optimizer=optimizer)
    assert equal(whole, resumed)


@pytest.mark.parametrize("encoder", ["static", "transformer"])
def test_resuming_on_texts_gives_the_uninterrupted_weights_bit_for_bit(encoder, tmp_path):
    words = np.random.default_rng(0).integers(0, 90, (100, 5))
    sentences = [" ".join(f"word{number}" for number in row) for row in words]
    dataset = fs.open_data({"text": sentences}, text="text")
    changes = {"encoder": encoder, "width": 32}
    items, _ = fitted(plan.complete(Recipe.parse({**TINY, **changes}), dataset, CPU), dataset)
    whole = weights("simclr", items, tmp_path / "a", **changes)
    resumed = weights("simclr", items, tmp_path / "b", stop_at=3, **changes)
    assert equal(whole, resumed)


def test_adamw_in_one_pass_is_adamw():
    """Weights that lie in one piece are stepped in one pass, others one operation after the other."""
    plain, fused = (nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)) for _ in range(2))
    fused.load_state_dict(plain.state_dict())
    optimizers = [
        torch.optim.AdamW(plain.parameters(), 0.01, weight_decay=0.0),
        make_optimizer(fused, "adamw", 0.01, 0.0),
    ]
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        for module, optimizer in zip((plain, fused), optimizers, strict=True):
            optimizer.zero_grad()
            module(x).square().sum().backward()
            optimizer.step()
    assert optimizers[1].defaults["fused"]
    for one, other in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    of_pictures = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    assert not make_optimizer(of_pictures, "adamw", 0.01, 0.0).defaults["fused"]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_recipe_gives_the_same_weights_and_another_seed_others(precision, images, tmp_path):
    a = weights("simclr", images, tmp_path, precision=precision, accumulate=2)
    assert equal(a, weights("simclr", images, tmp_path, precision=precision, accumulate=2))
    assert not equal(a, weights("simclr", images, tmp_path, precision=precision, accumulate=2, seed=1))


def test_kill_and_resume_by_command_line(tmp_path):
    """SIGKILL and SIGTERM at some moment; the same command then ends with the same bundle id."""
    command = [str(Path(sys.executable).with_name("fastness")), "train", "digits", "--steps", "24", "--width", "4"]
    command += ["--batch-size", "32", "--checkpoint-every", "0.001s", "--json"]

    def run(out: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    whole = run(tmp_path / "whole")
    wanted = json.loads(whole.communicate()[0])["id"]
    for number, kind in enumerate((signal.SIGKILL, signal.SIGTERM)):
        out = tmp_path / f"killed-{number}"
        process = run(out)
        events = out / "events.jsonl"
        while process.poll() is None and not (events.exists() and '"event": "step"' in events.read_text()):
            time.sleep(0.01)
        process.send_signal(kind)
        _, said = process.communicate()
        assert process.returncode != 0
        if kind == signal.SIGTERM:
            assert said.strip().splitlines()[-1].startswith("fastness: stopped at step")
        assert json.loads(run(out).communicate()[0])["id"] == wanted
        steps = [json.loads(line)["step"] for line in events.read_text().splitlines() if '"event": "step"' in line]
        assert steps == sorted(set(steps))


def test_a_checkpoint_is_whole_or_the_one_before(images, tmp_path):
    """Writing fails half-way: the old checkpoint still loads."""
    recipe = plan.complete(Recipe.parse(TINY), images.dataset, CPU)
    module, views = assembled(images, recipe)
    loop = make_loop(module, views, images, recipe, CPU, tmp_path, Settings())
    loop.fix_length()
    loop.save()
    before = sha256_file(loop.checkpoint_path)
    code = (
        "import resource, signal, sys, pathlib\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "from torch import nn, optim\n"
        "from fastness.core.errors import Failure\n"
        "from fastness.training import checkpoint\n"
        "net = nn.Linear(300, 300)\n"
        "try:\n"
        "    checkpoint.save(pathlib.Path(sys.argv[1]), net, optim.SGD(net.parameters(), 0.1), {'step': 1})\n"
        "except Failure as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(loop.checkpoint_path)], capture_output=True, text=True)
    assert "no room left" in done.stdout, done.stderr
    assert sha256_file(loop.checkpoint_path) == before
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.NAME]


def test_every_epoch_has_each_item_once_and_another_order():
    n, size = 103, 10
    orders = [epoch_order(e, n, 7) for e in range(3)]
    epochs = [np.concatenate([positions(s, orders[e], size) for s in range(e * 10, e * 10 + 10)]) for e in range(3)]
    for order in epochs:
        assert len(set(order.tolist())) == 100
    assert not np.array_equal(epochs[0], epochs[1])
    assert len(positions(0, epoch_order(0, 3, 0), 8)) == 8  # fewer items than a batch are repeated


def test_batches_made_ahead_equal_those_made_now(images):
    recipe = plan.complete(Recipe.parse(TINY), images.dataset, CPU)
    _, views = assembled(images, recipe)
    batches = Batches(images, views, 16, 0, CPU)
    for step, batch in enumerate(batches.run(range(4))):
        now = batches.make(step)
        assert all(torch.equal(a, b) for a, b in zip(batch.views, now.views, strict=True))
        assert torch.equal(batch.known.labels, now.known.labels)


def test_an_error_in_the_background_is_raised_in_the_step(images):
    recipe = plan.complete(Recipe.parse(TINY), images.dataset, CPU)
    _, views = assembled(images, recipe)
    views.specs = (None,)
    with pytest.raises(AttributeError):
        next(Batches(images, views, 16, 0, CPU).run(range(4)))


def test_fewer_items_than_a_batch_are_one_batch_in_which_none_is_its_own_negative(images):
    few = images.dataset.select(np.arange(20))
    for asked, size in (({}, 20), ({"batch_size": 32}, 32), ({"effective_batch": 512}, 64)):
        recipe = plan.complete(Recipe.parse({"method": "simclr", "width": 4, "size": 8, "steps": 1, **asked}), few, CPU)
        assert recipe.batch_size == size
    found = plan.complete(Recipe.parse({"method": "simclr", "width": 4, "size": 8, "steps": 1}), few, CPU)
    rows = positions(0, epoch_order(0, len(few), 0), found.batch_size)
    assert sorted(rows) == list(range(20))
    assert found.lr < plan.complete(Recipe.parse({"method": "simclr", "batch_size": 64}), few, CPU).lr


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.0), (10, 0.0), (100, 0.05), (100, 1.0)])
def test_the_rate_rises_to_its_peak_and_falls_to_nothing(total, warmup):
    rates = [learning_rate(step, total, 0.5, warmup) for step in range(total)]
    top = int(np.argmax(rates))
    assert max(rates) == pytest.approx(0.5)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert all(rate >= 0 and math.isfinite(rate) for rate in rates)


def test_a_time_budget_becomes_steps_and_leaves_the_start_as_it_was(images, tmp_path):
    recipe = plan.complete(Recipe.parse({**TINY, "steps": None, "budget": "2s"}), images.dataset, CPU)
    module, views = assembled(images, recipe)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    loop = make_loop(module, views, images, recipe, CPU, tmp_path, Settings())
    loop.fix_length()
    assert loop.total >= 1
    assert equal(before, loop.method.state_dict())
    assert not loop.optimizer.state


@pytest.mark.parametrize(
    ("step", "budget", "trials"),
    [(1.0, 100, 8), (0.125, 100, 18), (1.0, 1000, 9), (16.0, 100, 1), (8.0, 100, 2), (200.0, 100, 1)],
)
def test_a_time_budget_is_divided_by_what_a_step_takes(step, budget, trials, images, tmp_path, monkeypatch):
    """Tried are eight steps, more until 3% or 15 seconds are spent, fewer if that takes half; two warm up."""
    now, times = 0.0, []
    asked = {**TINY, "steps": None, "budget": f"{budget}s"}
    recipe = plan.complete(Recipe.parse(asked), images.dataset, CPU)
    module, views = assembled(images, recipe)
    loop = make_loop(module, views, images, recipe, CPU, tmp_path, Settings())

    def update(*_):
        nonlocal now
        times.append(step if len(times) > 1 else 4 * step)
        now += times[-1]

    monkeypatch.setattr(loop, "update", update)
    monkeypatch.setattr("fastness.training.loop.time.perf_counter", lambda: now)
    loop.fix_length()
    usual = step if trials > 2 else 4 * step
    assert len(times) == trials
    assert loop.total == max(1, int(((1 - _RESERVE) * budget - sum(times)) / usual))


@pytest.mark.parametrize(
    ("asked", "has"),
    [({"method": "simclr"}, True), ({"method": "simclr", "options": {"loss": "triplet"}}, False),
     ({"method": "siamese"}, False), ({"method": "siamese", "options": {"loss": "nt-xent"}}, True),
     ({"method": "byol"}, False), ({"method": "supervised"}, False), ({"method": "moco"}, True)],
)  # fmt: skip
def test_a_temperature_is_refused_where_it_would_change_nothing(images, asked, has):
    """And a complete recipe can be asked for again."""
    recipe = plan.complete(Recipe.parse({**TINY, **asked}), images.dataset, CPU)
    assert (recipe.temperature is not None) == has
    assert plan.complete(recipe, images.dataset, CPU) == recipe
    if has:
        asked = Recipe.parse({**TINY, **asked, "temperature": 0.3})
        assert plan.complete(asked, images.dataset, CPU).temperature == 0.3
    else:
        with pytest.raises(BadInput, match=r"--temperature 0\.3: .*drop it"):
            plan.complete(Recipe.parse({**TINY, **asked, "temperature": 0.3}), images.dataset, CPU)


def test_accumulated_gradients_are_the_mean_of_the_batches(images, tmp_path):
    """Without batch statistics, two accumulated supervised batches of 8 equal the mean gradient."""
    asked = {**TINY, "method": "supervised", "steps": 1, "batch_size": 8, "accumulate": 2, "precision": "float32"}
    asked |= {"lr": 1.0, "warmup": 0.0, "weight_decay": 0.0}
    recipe = plan.complete(Recipe.parse(asked), images.dataset, CPU)
    module, views = assembled(images, recipe)
    loop = make_loop(module, views, images, recipe, CPU, tmp_path, Settings())
    loop.fix_length()
    start = {k: v.clone() for k, v in module.named_parameters()}
    expected = {k: torch.zeros_like(v) for k, v in start.items()}
    for number in range(2):
        batch = loop.batches.make(number)
        module.train()
        module(batch.views, batch.known).loss.backward()
        for name, parameter in module.named_parameters():
            expected[name] += parameter.grad / 2
            parameter.grad = None
    loop.update(loop.source(0, 1), 0, 1)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(start[name] - parameter, expected[name], rtol=1e-4, atol=1e-6)


def test_normalisation_and_biases_are_not_decayed():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    for group in make_optimizer(net, "sgd", 0.1, 0.5).param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_collapse_watch_warns_of_collapse_and_of_nothing_else(seed):
    generator = torch.Generator().manual_seed(seed)
    healthy = torch.randn(128, 32, generator=generator)
    assert measure([healthy, healthy + 0.1]).warning(32) is None
    point = torch.ones(128, 32) + 1e-4 * healthy
    assert "one point" in measure([point, point]).warning(32)
    line = torch.randn(128, 1, generator=generator).sign() * torch.ones(128, 32) + 1e-3 * healthy
    assert "line" in measure([line]).warning(32)


def test_a_loss_that_is_not_finite_ends_the_run_with_a_remedy(tmp_path):
    with pytest.raises(fs.Failure, match="--lr"):
        fs.train("digits", out=tmp_path, quiet=True, lr=1e9, optimizer="sgd", precision="float32",
                 **{**TINY, "steps": 40, "method": "supervised"})  # fmt: skip


def test_supervised_learning_learns(images):
    """A few dozen steps beat chance by far: the whole chain of gradients is connected."""
    recipe = Recipe.parse({**TINY, "method": "supervised", "steps": 60, "optimizer": "adamw", "lr": 3e-3,
                           "views": {"flip": 0, "scale": [0.9, 1.0]}})  # fmt: skip
    _, encoder = fitted(plan.complete(recipe, images.dataset, CPU), images.dataset)
    method = fit(images, recipe, encoder)
    batch = method.encoder.preprocess(images.batch(np.arange(200)))
    predicted = method.eval().classifier(method.encoder(batch)).argmax(1).numpy()
    assert (predicted == images.dataset.labels[:200]).mean() > 0.6


def test_training_never_sees_validation_or_test():
    data = fs.open_data("digits")
    assert set(data.training_part().manifest.splits) == {"train"}


def test_init_starts_from_the_bundle_and_unfreeze_keeps_the_rest(tmp_path):
    first = fs.train("digits", out=tmp_path / "a", quiet=True, **TINY)
    tuned = fs.train("digits", method="supervised", init=str(first.bundle), unfreeze=1, out=tmp_path / "b", quiet=True,
                     steps=3, batch_size=16)  # fmt: skip
    a, b = (fs.load(run.bundle).encoder.backbone.state_dict() for run in (first, tuned))
    weights = [k for k in a if k.endswith("weight")]
    assert {k for k in weights if not torch.equal(a[k], b[k])} == {k for k in weights if k.startswith("blocks.7.")}
    statistics = [k for k in a if "running" in k and not k.startswith("blocks.7.")]
    assert all(torch.equal(a[k], b[k]) for k in statistics)


def test_a_module_of_the_users_own_is_trained_and_loaded(tmp_path):
    def net() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    run = fs.train("digits", encoder=net(), out=tmp_path, quiet=True, steps=3, size=16, batch_size=16)
    with pytest.raises(fs.BadInput, match="encoder=module"):
        fs.load(run.bundle)
    assert fs.load(run.bundle, encoder=net()).embed("digits").shape == (1797, 8)


def test_events_drop_what_comes_after_the_resumed_step(tmp_path):
    path = tmp_path / "events.jsonl"
    events = Events(path, 0, [])
    events.write("start", step=0)
    for step in (10, 20, 30):
        events.write("step", step=step, loss=1.0)
        events.write("knn", step=step, knn=1.0)
    events.close()
    with path.open("a") as torn:
        torn.write('{"event": "st')
    for _ in range(2):  # the second time it was stopped before the next step
        events = Events(path, 20, [])
        events.write("start", step=20)
        events.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [("start", 0), *((event, step) for step in (10, 20) for event in ("step", "knn")), ("start", 20)]
    assert [(line["event"], line["step"]) for line in lines] == told


def stopped(monkeypatch, data, out: Path, at: int, **recipe) -> None:
    """Train until a signal comes while step ``at`` is made; the run is saved there."""
    update = Loop.update

    def signalled(self, source, step, total):
        if step + 1 == at:
            signal.raise_signal(signal.SIGTERM)
        return update(self, source, step, total)

    with monkeypatch.context() as patch, pytest.raises(fs.Failure, match=f"stopped at step {at} of"):
        patch.setattr(Loop, "update", signalled)
        fs.train(data, out=out, quiet=True, **recipe)


def test_a_run_that_is_stopped_tells_each_step_once(monkeypatch, tmp_path):
    """And tells what an uninterrupted one tells, also of the step that it was stopped at."""
    recipe = {**TINY, "steps": 25}
    whole = fs.train("digits", out=tmp_path / "whole", quiet=True, **recipe)
    stopped(monkeypatch, "digits", tmp_path / "stopped", 10, **recipe)
    resumed = fs.train("digits", out=tmp_path / "stopped", quiet=True, **recipe)
    told = []
    for run in (whole, resumed):
        lines = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
        told.append([(line["event"], line["step"]) for line in lines if line["event"] in {"step", "knn"}])
    assert whole.id == resumed.id and told[0] == told[1]
    assert [step for event, step in told[0] if event == "step"] == [10, 20, 25]


def test_what_a_killed_run_left_half_written_is_swept_and_nothing_else(tmp_path):
    kept = [tmp_path / name for name in ("mine.tmp", ".mine.abcdefgh.tmp", ".checkpoint.tmp")]
    left = []
    for name in (checkpoint.NAME, "events.jsonl", "quarantine.csv"):
        with contextlib.suppress(KeyboardInterrupt), atomic_path(tmp_path / name) as temporary:
            left.append(temporary)
            raise KeyboardInterrupt
    for place in kept + left:
        place.write_bytes(b"half")
    folder = tmp_path / ".bundle.abcdefgh.tmp"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"half")
    fs.train("digits", out=tmp_path, quiet=True, **TINY)
    assert all(place.exists() for place in kept)
    assert not any(place.exists() for place in [*left, folder])


def without(path: Path, *names: str) -> None:
    """Make a checkpoint one that was saved before these were known to it."""
    with safe_open(path, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    state = {name: value for name, value in checkpoint.read_state(path).items() if name not in names}
    save_file(tensors, path, {"state": json.dumps(state)})


def test_a_run_with_other_columns_is_refused(monkeypatch, tmp_path):
    """Also of groups, which are in no fingerprint; that a column is not named is no other than that it is ``None``."""
    table = tmp_path / "texts.csv"
    table.write_text("text,g,h\n" + "".join(f"item {i} of many,{i // 2},{i // 3}\n" for i in range(40)))
    recipe = {"text": "text", "method": "simclr", "width": 8, "batch_size": 8, "steps": 4}
    stopped(monkeypatch, table, tmp_path / "run", 2, group="g", **recipe)
    before = sha256_file(tmp_path / "run" / checkpoint.NAME)
    for group in ("h", None):
        with pytest.raises(BadInput, match=f"run: holds a run with group = g, not {group}; choose another --out"):
            fs.train(table, out=tmp_path / "run", quiet=True, group=group, **recipe)
    assert sha256_file(tmp_path / "run" / checkpoint.NAME) == before
    assert fs.train(table, out=tmp_path / "run", quiet=True, group="g", label=None, **recipe).steps == 4
    stopped(monkeypatch, table, tmp_path / "old", 2, group="g", **recipe)
    without(tmp_path / "old" / checkpoint.NAME, "columns", "init")
    assert fs.train(table, out=tmp_path / "old", quiet=True, group="g", **recipe).steps == 4


def test_a_run_that_started_from_a_bundle_which_is_another_now_is_refused(monkeypatch, tmp_path):
    made = [fs.train("digits", out=tmp_path / f"init-{seed}", quiet=True, seed=seed, **TINY) for seed in range(2)]
    place, out = tmp_path / "init", tmp_path / "run"
    recipe = {"method": "supervised", "init": str(place), "steps": 4, "batch_size": 16}
    shutil.copytree(made[0].bundle, place)
    stopped(monkeypatch, "digits", out, 2, **recipe)
    shutil.rmtree(place)
    shutil.copytree(made[1].bundle, place)
    with pytest.raises(BadInput, match=r"run: holds a run that started from another bundle than .*; choose another"):
        fs.train("digits", out=out, quiet=True, **recipe)
    without(out / checkpoint.NAME, "columns", "init")
    assert fs.train("digits", out=out, quiet=True, **recipe).steps == 4


def test_import_is_light():
    """Nothing heavy is imported before it is needed."""
    heavy = ("torch", "sklearn", "pyarrow", "PIL", "matplotlib")
    code = f"import sys, fastness; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ).stdout == "[]\n"


def test_a_finished_run_is_left_alone(tmp_path):
    """The same command again changes nothing: evidence that was added to the bundle stays."""
    run = fs.train("digits", out=tmp_path, quiet=True, **TINY)
    note = run.bundle / "evidence" / "kept.txt"
    note.parent.mkdir()
    note.write_text("kept")
    again = fs.train("digits", out=tmp_path, quiet=True, **TINY)
    assert again.id == run.id and note.read_text() == "kept"
    with pytest.raises(fs.BadInput, match="seed"):
        fs.train("digits", out=tmp_path, quiet=True, **{**TINY, "seed": 3})
    with pytest.raises(fs.BadInput, match="other data"):
        fs.train((np.zeros((32, 8, 8), np.uint8), np.arange(32)), out=tmp_path, quiet=True, **TINY)


@pytest.mark.parametrize("together", [1, 2, 4])
def test_items_of_a_key_lie_side_by_side_and_none_is_lost(together):
    generator = np.random.default_rng(0)
    keys = generator.integers(-1, 40, 210)
    epoch, other = (epoch_order(number, 210, 3, keys, together) for number in range(2))
    assert sorted(epoch) == sorted(other) == list(range(210)) and not np.array_equal(epoch, other)
    runs = np.diff(np.flatnonzero(np.r_[True, np.diff(keys[epoch]) != 0, True]))
    assert runs.mean() > 0.6 * together
    if together > 1:  # every key's items come in bunches of that many, but for a rest
        for key in range(40):
            mine = np.flatnonzero(keys[epoch] == key)
            neighbours = np.diff(mine) == 1
            assert neighbours.sum() >= len(mine) - -(-len(mine) // together)


def test_paired_images_train_without_labels(images):
    """Pairs by group and no labels: partners lie in one batch and are each other's positives."""
    kept = images.dataset
    pairs = np.full(len(kept.whole), "", dtype="U10")
    pairs[kept.rows] = [f"pair {i // 2}" for i in range(len(kept))]
    whole = dataclasses.replace(kept.whole, labels=None, class_names=(), groups=pairs)
    paired = dataclasses.replace(images, dataset=dataclasses.replace(kept, whole=whole))
    recipe = plan.complete(Recipe.parse({"method": "siamese", **TINY}), paired.dataset, CPU)
    method, views = assembled(paired, recipe)
    loop = make_loop(method, views, paired, recipe, CPU, Path(), Settings())
    batch = loop.batches.make(0)
    assert batch.known.labels is None and batch.known.groups is not None
    keys = method.keys(len(batch.known.groups), batch.known, CPU)
    assert torch.equal(keys, batch.known.groups)
    assert (torch.bincount(keys)[keys] == 2).float().mean() > 0.8
    loop.fix_length()
    loop.run_silently()


def test_an_effective_batch_has_no_item_twice_and_ends_with_the_epoch(images):
    recipe = plan.complete(Recipe.parse(TINY), images.dataset, CPU)
    _, views = assembled(images, recipe)
    batches = Batches(images, views, 16, 0, CPU, parts=4)
    for whole in range(8):
        rows = np.concatenate([batches._positions(4 * whole + part) for part in range(4)])
        assert len(set(rows.tolist())) == 64


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_gradient_cache_computes_in_the_precision_of_the_recipe(precision, images):
    asked = {**TINY, "precision": precision, "effective_batch": 64, "steps": 2}
    recipe = plan.complete(Recipe.parse(asked), images.dataset, CPU)
    method, views = assembled(images, recipe)
    loop = make_loop(method, views, images, recipe, CPU, Path(), Settings())
    seen = set()
    method.encoder.backbone.blocks[3].register_forward_hook(lambda module, inputs, out: seen.add(out.dtype))
    loop.fix_length()
    loop.run_silently()
    assert seen == {torch.float32 if precision == "float32" else torch.bfloat16}


def test_an_effective_batch_beyond_the_data_is_refused(tmp_path):
    with pytest.raises(BadInput, match="more than"):
        fs.train("digits", **TINY, effective_batch=1600, out=tmp_path)


def test_training_silently_goes_on_from_the_current_step(images, tmp_path):
    """A resumed loop meets the batches that it has not seen, not those of the start again."""
    recipe = plan.complete(Recipe.parse(TINY), images.dataset, CPU)
    method, views = assembled(images, recipe)
    loop = make_loop(method, views, images, recipe, CPU, tmp_path, Settings())
    made: list[int] = []
    make = loop.batches.make
    loop.batches.make = lambda number: made.append(number) or make(number)
    loop.fix_length()
    loop.step = 4
    loop.run_silently()
    assert made == [4, 5]


def test_each_optimiser_has_the_rate_and_decay_of_its_kind(images):
    """LARS wants ten times the rate of SGD; rates grow with the root of the batch; what is asked for is left alone."""

    def asked(**changes) -> Recipe:
        return plan.complete(Recipe.parse({"steps": 1, **changes}), images.dataset, CPU)

    sgd, lars, adamw = (asked(optimizer=name) for name in ("sgd", "lars", "adamw"))
    assert lars.lr == pytest.approx(10 * sgd.lr) and adamw.lr == 1e-3
    assert (lars.weight_decay, adamw.weight_decay) == (1e-6, 0.05)
    batch = 4 * sgd.batch_size
    for changes in ({"batch_size": batch}, {"accumulate": 4}, {"effective_batch": batch}):
        assert asked(optimizer="sgd", **changes).lr == pytest.approx(2 * sgd.lr, rel=1e-3)
    assert asked(optimizer="sgd", init="timm:none").lr == pytest.approx(0.1 * sgd.lr, rel=1e-3)
    assert asked(optimizer="adamw", lr=0.5, weight_decay=0.0).model_dump(include={"lr", "weight_decay"}) == {
        "lr": 0.5, "weight_decay": 0.0
    }  # fmt: skip


def test_the_online_knn_is_that_of_labelled_items(images):
    """Bank and queries share no item and hold no unlabelled one; the figure is the metric's, the mode is given back."""
    labels = images.dataset.whole.labels.copy()
    labels[::3] = -1
    whole = dataclasses.replace(images.dataset.whole, labels=labels)
    part = dataclasses.replace(images, dataset=dataclasses.replace(images.dataset, whole=whole))
    watch = OnlineKNN(part, seed=0)
    bank, queries = watch._bank, watch._queries
    mine = part.dataset.labels
    assert watch.possible and len(queries) == int((mine >= 0).sum()) // 5
    assert sorted([*bank, *queries]) == np.flatnonzero(mine >= 0).tolist()
    recipe = plan.complete(Recipe.parse({**TINY, "precision": "float32"}), part.dataset, CPU)
    _, encoder = fitted(recipe, part.dataset)
    found = watch(encoder.train(), torch.autocast("cpu", enabled=False))
    assert encoder.training
    with torch.no_grad():
        z = encoder.eval()(encoder.preprocess(part.batch(np.arange(len(part))))).numpy()
    assert found == (knn_predict(z[bank], mine[bank], z[queries]) == mine[queries]).mean()
    nothing = dataclasses.replace(whole, labels=np.full(len(whole), -1))
    unlabelled = dataclasses.replace(images, dataset=dataclasses.replace(images.dataset, whole=nothing))
    assert not OnlineKNN(unlabelled, seed=0).possible


@pytest.mark.parametrize("broken", ["bank", "queries"])
def test_the_online_knn_of_what_is_no_number_is_nothing(images, broken):
    """Whichever part of the items it is that has come apart."""
    watch = OnlineKNN(images, seed=0)
    rows = getattr(watch, f"_{broken}")

    class Apart(torch.nn.Module):
        dim = 4

        def forward(self, x):
            return x.flatten(1)[:, :4]

    encoder = ImageEncoder(Apart(), ImageSpec("module", 16))
    pixels = images.batch(rows[:1])
    whole = encoder.preprocess

    def preprocess(batch):
        out = whole(batch)
        out[(batch == pixels).flatten(1).all(1)] = float("nan")
        return out

    encoder.preprocess = preprocess
    assert watch(encoder, torch.autocast("cpu", enabled=False)) == 0.0


def test_the_signals_are_those_of_the_first_two_views():
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(300, 6, generator=generator) for _ in range(3)]
    one, other = (torch.nn.functional.normalize(v[:256], dim=1) for v in views[:2])
    found = collapse.measure(views)
    assert found.alignment == pytest.approx(geometry.alignment(one, other)) and found.alignment > 1
    assert found.uniformity == pytest.approx(geometry.uniformity(one))
    assert found.feature_std == pytest.approx(geometry.feature_std(one))
    assert found.effective_rank == pytest.approx(geometry.effective_rank(one))
    assert collapse.measure(views[:1]).alignment == 0.0 and collapse.measure([views[0], views[1][:7]]).alignment == 0.0


def test_what_is_shown_of_a_run_without_a_terminal(monkeypatch, capsys):
    """A line every fifteen seconds, the last step always; a warning once; kNN as soon as it is known."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    numbers = dict.fromkeys(
        ("loss", "views_per_second", "waiting", "feature_std", "effective_rank", "alignment", "uniformity"), 0.25
    )
    display = Display()
    for done in (1, 2000):
        display.decoding(done, 2000)
    display.decoding(1000, 1000)
    display.start(9, 0)
    for step, seconds in ((1, 100.0), (2, 114.0), (3, 115.5), (4, 130.4), (5, 131.0), (9, 131.5)):
        now = seconds
        display.update(step, numbers)
        display.knn(0.5)
    for text in ("it collapsed (std 0.1)", "it collapsed (std 0.2)", "another thing"):
        display.warn(text)
    display.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "read 2,000 items", "step 1/9", "step 3/9", "step 5/9", "step 9/9",
        "warning: it collapsed (std 0.1)", "warning: another thing",
    ]  # fmt: skip
    assert "kNN" not in lines[1] and all("kNN 0.500" in line for line in lines[2:5])
    assert "loss 0.250" in lines[1] and "waiting 25%" in lines[1]
    Display(quiet=True).decoding(2000, 2000)
    assert capsys.readouterr().err == ""


def test_a_run_says_what_it_chose_and_where_it_goes_on(tmp_path, capsys):
    recipe = {**TINY, "steps": 4}
    fs.train("digits", out=tmp_path / "run", **recipe)
    said = capsys.readouterr().err
    assert "step 4/4" in said and "resnet18" in said
    fs.train("digits", out=tmp_path / "run", **recipe)
    assert "finished before, with 4 steps" in capsys.readouterr().err


def test_loggers_get_the_numbers_and_unknown_ones_are_refused(tmp_path):
    """Steps and kNN, by name and step; no words, no step among them; nothing is lost of what the file gets."""

    class Kept:
        def __init__(self):
            self.lines = []

        def log_metrics(self, metrics, step):
            self.lines.append((step, metrics))

    kept = Kept()
    events = Events(tmp_path / "events.jsonl", 0, [kept])
    events.write("start", step=0, total=3)
    events.write("step", step=1, loss=0.123456789, word="none")
    events.write("knn", step=2, knn=1)
    events.write("warning", step=2, text="no number")
    events.close()
    assert kept.lines == [(1, {"loss": 0.123456789}), (2, {"knn": 1.0})]
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "step", "knn", "warning"] and lines[1]["loss"] == 0.123457
    with pytest.raises(BadInput, match="unknown logger 'paper'; known: tensorboard"):
        fs.train("digits", out=tmp_path / "run", quiet=True, loggers=["paper"], **TINY)


def test_a_run_that_may_stop_on_collapse_goes_on_while_it_is_well(tmp_path):
    run = fs.train("digits", out=tmp_path, quiet=True, stop_on_collapse=True, **{**TINY, "steps": 40, "batch_size": 32})
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    assert run.steps == 40 and not any(event["event"] == "warning" for event in events)
