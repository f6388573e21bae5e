"""SimCLR written with `lightly`, the way its documentation writes it for CIFAR-10: the peer fastness is
measured against.

It runs in its own virtual environment (`lightly.txt` beside this file) and imports nothing of fastness.

The recipe is the SimCLR entry of lightly's CIFAR-10 benchmark, the file
`docs/source/getting_started/benchmarks/cifar10_benchmark.py` of lightly's repository (its documentation links
it on the page "Benchmarks"), looked up at commit e8d317fc and against the installed release 1.6.0:

* views: `SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)` on PIL images, the rest at
  its defaults, so both views get the same distribution and ImageNet's mean and std. Above 32 pixels blur goes
  back to its default of 0.5, as in lightly's 128-pixel benchmark (`imagenette_benchmark.py`, same folder).
* model: a backbone, then `SimCLRProjectionHead(D, D, 128)` (there 512, 512, 128, its ResNet-18 having
  D = 512), one forward pass for each view.
* loss: `NTXentLoss()` with its default temperature of 0.5.
* optimiser: SGD over all parameters, learning rate 0.06 · batch/128, momentum 0.9, weight decay 5e-4.
* schedule: cosine from that rate to zero, no warm-up.
* data: torch's `DataLoader`, shuffled, last incomplete batch dropped, worker processes.
* features: backbone in eval mode, images only scaled and normalised.

What differs from that file, and why:

* the backbone comes from `--net`, so that both sides of a comparison train the same network;
* the batch size is given (128 and 512 there) and the number of workers too (8 there);
* a plain loop in place of the Lightning trainer, as in lightly's `examples/pytorch/simclr.py`, and no kNN
  evaluation between epochs, so that only training is on the clock;
* workers stay alive between epochs, which can only help lightly;
* with `--steps` or `--minutes` the cosine moves every step; with `--epochs` every epoch, as there.

Exactly one of five modes: `--epochs`, `--steps`, `--minutes` (train, then write features to `--out`),
`--throughput SECONDS` (train after three warm-up steps, report, exit) and `--serve` (read step counts from
standard input, one a line, and answer each with its time; the first answer includes the start of the
workers). Standard output carries JSON lines and nothing else.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lightly
import numpy as np
import torch
import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from lightly.transforms.utils import IMAGENET_NORMALIZE
from PIL import Image
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, default_collate

BASE_LR, BASE_BATCH, MOMENTUM, WEIGHT_DECAY = 0.06, 128, 0.9, 5e-4
JITTER_STRENGTH = 0.5
LARGEST_UNBLURRED = 32  # pixels
WARM_UP_STEPS = 3
TIMED_FROM, TIMED_TO, TIMED_SHARE = 4, 20, 0.05  # --minutes: steps, steps, share of the budget


class Pairs(Dataset):
    """Images held as arrays, given out as two augmented views and a label."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: SimCLRTransform) -> None:
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[list[torch.Tensor], int]:
        image = Image.fromarray(self.images[index].transpose(1, 2, 0))
        return self.transform(image), int(self.labels[index])


class CountedBatches(BatchSampler):
    """A batch sampler that knows how many batches it has handed to the workers."""

    asked = 0

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            self.asked += 1
            yield batch


class CountedCollate:
    """The default collation, counting the batches that the workers have finished."""

    def __init__(self) -> None:
        self.finished = multiprocessing.Value("q", 0)

    def __call__(self, samples: list) -> list:
        batch = default_collate(samples)
        with self.finished.get_lock():
            self.finished.value += 1
        return batch


class SimCLR(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = SimCLRProjectionHead(backbone.dim, backbone.dim, 128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x))


class Training:
    """Model, optimiser and an endless stream of batches; `step` takes one optimiser step."""

    def __init__(self, args: argparse.Namespace, loader: DataLoader, backbone: nn.Module) -> None:
        self.device = torch.device(args.device)
        self.bf16 = args.precision == "bf16"
        self.model = SimCLR(backbone).to(self.device).train()
        self.criterion = NTXentLoss()
        self.base_lr = BASE_LR * args.batch_size / BASE_BATCH
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=self.base_lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.views_per_step = 2 * args.batch_size
        self.batches = endless(loader)
        self.loss = torch.zeros((), device=self.device)
        self.waited = 0.0  # seconds spent waiting for the loader

    def set_progress(self, done: float) -> None:
        """Set the learning rate for a share `done` of the training: cosine, from the base rate to zero."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.base_lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def precision(self) -> contextlib.AbstractContextManager:
        if self.bf16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def step(self) -> None:
        asked = time.perf_counter()
        (x0, x1), _ = next(self.batches)
        self.waited += time.perf_counter() - asked
        x0, x1 = x0.to(self.device), x1.to(self.device)
        with self.precision():
            loss = self.criterion(self.model(x0), self.model(x1))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss = loss.detach()

    def clock(self) -> float:
        """The time now, once everything asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def finite_loss(self) -> float:
        loss = float(self.loss)
        if not math.isfinite(loss):
            raise SystemExit(f"the training diverged: its last loss is {loss}")
        return loss


def endless(loader: DataLoader) -> Iterator[tuple]:
    while True:
        yield from loader


def load_net(path: Path, args: argparse.Namespace) -> nn.Module:
    spec = importlib.util.spec_from_file_location("peer_net", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"--net {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that dataclasses in it can resolve their annotations
    spec.loader.exec_module(module)
    return module.resnet(args.depth, args.width, args.stem, in_channels=3)


def make_loader(args: argparse.Namespace, images: np.ndarray, labels: np.ndarray) -> DataLoader:
    blur = {"gaussian_blur": 0.0} if args.size <= LARGEST_UNBLURRED else {}
    transform = SimCLRTransform(input_size=args.size, cj_strength=JITTER_STRENGTH, **blur)
    dataset = Pairs(images, labels, transform)
    if args.serve:  # the same order of batches and the same work, with the counts that `serve` needs
        sampler = CountedBatches(RandomSampler(dataset), args.batch_size, drop_last=True)
        how = {"batch_sampler": sampler, "collate_fn": CountedCollate()}
    else:
        how = {"batch_size": args.batch_size, "shuffle": True, "drop_last": True}
    return DataLoader(dataset, num_workers=args.workers, persistent_workers=args.workers > 0, **how)


def train_for_epochs(training: Training, epochs: int, steps_per_epoch: int) -> int:
    for epoch in range(epochs):
        training.set_progress(epoch / epochs)
        for _ in range(steps_per_epoch):
            training.step()
    return epochs * steps_per_epoch


def train_for_steps(training: Training, steps: int) -> int:
    for step in range(steps):
        training.set_progress(step / steps)
        training.step()
    return steps


def train_for_seconds(training: Training, budget: float) -> int:
    """Train so that the cosine ends when the budget does.

    The number of steps follows from the time a step takes, looked at after every step until the later of
    `TIMED_TO` steps and `TIMED_SHARE` of the budget, and is fixed from then on. The first `TIMED_FROM` steps,
    in which workers start and memory is first touched, count against the budget but not in the pace.
    """
    start = time.perf_counter()
    step, total, settled, paced_from = 0, math.inf, False, start
    while step < total:
        training.set_progress(step / total)
        training.step()
        step += 1
        if settled or step < TIMED_FROM:
            continue
        now = training.clock()
        if step == TIMED_FROM:
            paced_from = now
            continue
        pace = (now - paced_from) / (step - TIMED_FROM)
        total = max(step, step + round((budget - (now - start)) / pace))
        settled = step >= TIMED_TO and now - start >= TIMED_SHARE * budget
    return step


@torch.inference_mode()
def features_of(training: Training, images: np.ndarray, size: int) -> np.ndarray:
    """Pooled features of images that are only scaled to [0, 1], resized if they must be, and normalised."""
    # Channels last changes nothing but the time that this takes, which is not on the clock.
    backbone = training.model.backbone.eval().to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(IMAGENET_NORMALIZE[k], device=training.device).view(1, 3, 1, 1) for k in ("mean", "std"))
    parts = []
    for i in range(0, len(images), 500):
        x = torch.from_numpy(images[i : i + 500]).to(training.device).float() / 255
        if x.shape[-2:] != (size, size):
            x = torchvision.transforms.v2.functional.resize(x, [size, size], antialias=True)
        with training.precision():
            parts.append(backbone((x - mean) / std).float().cpu().numpy())
    return np.concatenate(parts)


def train(args: argparse.Namespace, training: Training, steps_per_epoch: int, data: dict) -> None:
    start, cpu = training.clock(), time.process_time()
    if args.epochs is not None:
        steps = train_for_epochs(training, args.epochs, steps_per_epoch)
    elif args.steps is not None:
        steps = train_for_steps(training, args.steps)
    else:
        steps = train_for_seconds(training, 60 * args.minutes)
    seconds = training.clock() - start
    cpu = time.process_time() - cpu
    views = steps * training.views_per_step
    report = {
        "mode": "train",
        "steps": steps,
        "epochs": round(steps / steps_per_epoch, 3),
        "seconds": round(seconds, 3),
        "views_per_second": round(views / seconds, 2),
        "waiting_for_data_seconds": round(training.waited, 3),
        "last_loss": round(training.finite_loss(), 5),
    }
    if args.out is not None:
        start = training.clock()
        features = {f"{part}_features": features_of(training, data[part], args.size) for part in data}
        report["feature_seconds"] = round(training.clock() - start, 3)
        report["cpu_seconds_outside_training"] = round(time.process_time() - cpu, 3)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        np.savez(args.out, **features, seconds=seconds, steps=np.int64(steps), views_per_second=views / seconds)
    say(args, report)


def throughput(args: argparse.Namespace, training: Training) -> None:
    for _ in range(WARM_UP_STEPS):
        training.step()
    start, steps = training.clock(), 0
    training.waited = 0.0
    while training.clock() - start < args.throughput:
        training.step()
        steps += 1
    seconds = training.clock() - start
    report = {
        "mode": "throughput",
        "views_per_second": round(steps * training.views_per_step / seconds, 2),
        "steps": steps,
        "seconds": round(seconds, 3),
        "waiting_for_data_seconds": round(training.waited, 3),
        "last_loss": round(training.finite_loss(), 5),
    }
    say(args, report)


def serve(args: argparse.Namespace, training: Training, loader: DataLoader) -> None:
    """Run the number of steps that each line of standard input asks for.

    The answer comes once the workers have made every batch they were asked for, and the clock runs until
    then. So every turn but the first starts and ends with the same stock of batches, none of its work is done
    in the other side's turn, and the workers are idle while the other side is timed.
    """
    batches, collate = loader.batch_sampler, loader.collate_fn

    def settle() -> None:
        while collate.finished.value < batches.asked:
            time.sleep(0.002)

    for line in sys.stdin:
        if not line.strip():
            continue
        steps = int(line)
        training.waited = 0.0
        start = training.clock()
        for _ in range(steps):
            training.step()
        trained = training.clock()
        settle()
        end = training.clock()
        report = {
            "mode": "serve",
            "steps": steps,
            "views": steps * training.views_per_step,
            "seconds": round(end - start, 4),
            "settling_seconds": round(end - trained, 4),
            "waiting_for_data_seconds": round(training.waited, 4),
            "last_loss": round(training.finite_loss(), 5),
        }
        say(args, report)


def say(args: argparse.Namespace, report: dict) -> None:
    setting = {
        "peer": "lightly",
        "lightly": lightly.__version__,
        "torch": torch.__version__,
        "depth": args.depth,
        "width": args.width,
        "size": args.size,
        "batch_size": args.batch_size,
        "workers": args.workers,
        "threads": torch.get_num_threads(),
        "device": args.device,
        "precision": args.precision,
        "seed": args.seed,
    }
    print(json.dumps(report | setting), flush=True)


def positive(kind: type) -> object:
    def parse(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be above zero: {text}")
        return value

    parse.__name__ = kind.__name__
    return parse


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, required=True, help="npz: images, labels, test_images, test_labels")
    parser.add_argument("--net", type=Path, required=True, help="Python file with resnet(depth, width, stem, ...)")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--epochs", type=positive(int))
    mode.add_argument("--steps", type=positive(int))
    mode.add_argument("--minutes", type=positive(float), help="training time, features not counted")
    mode.add_argument("--throughput", type=positive(float), metavar="SECONDS")
    mode.add_argument("--serve", action="store_true")
    parser.add_argument("--depth", type=int, default=18)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--stem", default="small", help="passed to resnet() as it is")
    parser.add_argument("--size", type=positive(int), default=32, help="pixels a side of a view")
    parser.add_argument("--batch-size", type=positive(int), default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=positive(int), help="torch's threads; default: torch's own choice")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--out", type=Path, help="npz for the features (training modes only)")
    args = parser.parse_args()
    if args.out is not None and (args.serve or args.throughput is not None):
        parser.error("--out goes with --epochs, --steps or --minutes")
    return args


def main() -> None:
    args = arguments()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    with np.load(args.data) as file:
        images, labels, test_images = file["images"], file["labels"], file["test_images"]
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8:
        raise SystemExit(f"--data: images must be uint8 [N, 3, H, W], not {images.dtype} {images.shape}")
    if len(images) < args.batch_size:
        raise SystemExit(f"--data: {len(images)} images do not fill one batch of {args.batch_size}")
    loader = make_loader(args, images, labels)
    training = Training(args, loader, load_net(args.net, args))
    if args.serve:
        serve(args, training, loader)
    elif args.throughput is not None:
        throughput(args, training)
    else:
        train(args, training, len(images) // args.batch_size, {"train": images, "test": test_images})


if __name__ == "__main__":
    main()
