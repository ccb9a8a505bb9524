"""Measure the training step, beside the reference repository's own network and loop when a copy is at hand.

    python -m attnet.benchmark --reference path/to/Residual-Attention-Network --output data/results/cpu_step.json

The copy needs one change to run on Python 3: `output_channels/4` to `output_channels//4` in model/basic_layers.py.
Steps of both are interleaved, so that a change in the machine's speed meets both; figures are medians.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import itertools
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet import device as devices
from attnet.config import TrainConfig
from attnet.device import Device
from attnet.paths import resolve_path
from attnet.plan import make_plan
from attnet.trainer import Trainer

REFERENCE_CLASS = "ResidualAttentionModel_92_32input_update"


def trainer_for(options: argparse.Namespace, **changes: object) -> Trainer:
    """The engine itself, set up for recipe `seed`; it writes nothing before it is run."""
    given = {
        "mode": "rehearsal",
        "dataset": "shapes",
        "model": options.model,
        "train_batch_size": options.batch_size,
        "amp": options.amp,
        "device_type": options.device_type,
    }
    return Trainer(make_plan(TrainConfig(**given | changes)))


def our_step(options: argparse.Namespace) -> Callable[[], Tensor]:
    """One training step of the engine, batch making included, as a function that returns the loss."""
    trainer = trainer_for(options)
    stream = itertools.chain.from_iterable(map(trainer.train_batches.epoch, itertools.count()))
    trainer.network.train()
    return lambda: trainer.train_step(next(stream), trainer.config.lr)


def reference_step(device: Device, folder: Path, batch_size: int) -> Callable[[], Tensor]:
    """One step of the reference's loop (its train.py) on its own network; the batch is there already."""
    sys.path.insert(0, str(folder))
    network: nn.Module = getattr(importlib.import_module("model.residual_attention_network"), REFERENCE_CLASS)()
    network.to(device.torch_device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.0001)
    images = torch.rand(batch_size, 3, 32, 32, device=device.torch_device)
    labels = torch.randint(10, (batch_size,), device=device.torch_device)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = criterion(network(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


class Worker:
    """A process of its own that takes steps of one kind when told to, so that neither kind disturbs the other."""

    def __init__(self, kind: str, options: argparse.Namespace) -> None:
        words = ["--worker", kind, "--model", options.model, "--batch_size", str(options.batch_size)]
        words += ["--amp", options.amp, "--device_type", options.device_type]
        words += ["--reference", str(options.reference)] if options.reference else []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "attnet.benchmark", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ask("step")  # start-up

    def ask(self, what: str) -> float:
        """ "step": the seconds of one step. "peak": bytes at the peak so far."""
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def work(options: argparse.Namespace) -> None:
    """The worker's side: answer each line on standard input with a number."""
    device = devices.choose(options.device_type)
    with device.working() if options.worker == "ours" else contextlib.nullcontext():
        if options.worker == "ours":
            step = our_step(options)
        else:
            step = reference_step(device, options.reference, options.batch_size)
        for line in sys.stdin:
            if line.strip() == "peak":
                print(device.peak_memory(), flush=True)
                continue
            begun = time.perf_counter()
            step()
            device.synchronize()
            print(time.perf_counter() - begun, flush=True)


def import_seconds(rounds: int = 7) -> dict[str, float]:
    """Median seconds of a fresh process that imports torch, and of one that imports attnet, in turn."""
    seconds: dict[str, list[float]] = {"torch": [], "attnet": []}
    for _ in range(rounds):
        for name, values in seconds.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            values.append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Step, import time and memory; `ratio` is the reference's seconds over ours, step by step."""
    workers = {kind: Worker(kind, options) for kind in ("ours", *(["reference"] if options.reference else []))}
    seconds: dict[str, list[float]] = {kind: [] for kind in workers}
    for _ in range(options.rounds):
        for kind, worker in workers.items():
            seconds[kind].append(worker.ask("step"))
    peaks = {kind: int(worker.ask("peak")) for kind, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    result: dict[str, object] = {
        "what": "one training step; medians of steps taken in turn, each kind in a process of its own",
        "model": options.model,
        "batch_size": options.batch_size,
        "amp": options.amp,
        "images_per_second": {kind: options.batch_size / value for kind, value in medians.items()},
        "step_seconds": {kind: {"median": medians[kind], "all": values} for kind, values in seconds.items()},
        "peak_memory_bytes": peaks,
        "import_seconds": import_seconds(),
        "environment": devices.environment(devices.choose(options.device_type)),
        "date": date.today().isoformat(),
    }
    if options.reference:
        ratios = sorted(r / o for r, o in zip(seconds["reference"], seconds["ours"], strict=True))
        result["ratio"] = {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
    return result


def measure_ranks(options: argparse.Namespace) -> dict[str, object]:
    """FPS of `ranks` processes against one process on the same cores.

    Whole runs of `mode=performance` on CIFAR-10 images, taken in turn; the global batch is the same.
    """
    cards = (1, options.ranks)
    fps: dict[int, list[float]] = {count: [] for count in cards}
    for _ in range(options.rounds):
        for count in cards:
            with tempfile.TemporaryDirectory() as folder:
                flags = {
                    "mode": "performance", "model": options.model, "data_path": options.data_path,
                    "train_images": options.train_images, "train_batch_size": options.batch_size // count,
                    "device_num": count, "total_epochs": 1, "output_dir": f"{folder}/run",
                }  # fmt: skip
                words = [f"--{name}={value}" for name, value in flags.items()]
                subprocess.run([sys.executable, "-m", "attnet.train", *words], check=True, capture_output=True)
                row = json.loads(Path(folder, "run", "metrics.jsonl").read_text())
            fps[count].append(row["fps"])
    efficiency = sorted(many / one for one, many in zip(fps[1], fps[options.ranks], strict=True))
    return {
        "what": "images/s of several ranks against one process with as many threads, same global batch, in turn",
        "model": options.model,
        "global_batch_size": options.batch_size,
        "train_images": options.train_images,
        "fps": {f"{count} ranks": values for count, values in fps.items()},
        "efficiency": {"median": statistics.median(efficiency), "low": efficiency[0], "high": efficiency[-1]},
        "environment": devices.environment(devices.choose(options.device_type)),
        "date": date.today().isoformat(),
    }


def compare_losses(options: argparse.Namespace) -> dict[str, object]:
    """Losses of the first training steps, ours against plain loops in float32 and float64 on the same batches.

    The plain loop is the reference's: contiguous tensors, torch's SGD, no engine. `float64_at_our_weights` takes
    our weights at each step, which leaves out how far two trainings drift apart.
    """
    trainer = trainer_for(
        options, dataset="cifar10", data_path=options.data_path, train_images=0, test_images=10, mode="full"
    )
    device, model = trainer.device, trainer.model
    stream = trainer.train_batches.epoch(0)
    trainer.network.train()
    plain = {
        name: copy.deepcopy(model).to(dtype).to(memory_format=torch.contiguous_format)
        for name, dtype in (("plain_float32", torch.float32), ("float64", torch.float64))
    }
    sgd = {
        name: torch.optim.SGD(net.parameters(), lr=options.lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
        for name, net in plain.items()
    }
    rows: dict[str, list[float]] = {name: [] for name in ("ours", *plain, "float64_at_our_weights")}
    for _, [batch] in zip(range(options.losses), stream, strict=False):
        same = copy.deepcopy(plain["float64"])
        same.load_state_dict(trainer.weights())
        with torch.no_grad():
            exact = F.cross_entropy(same(batch.images.double().contiguous()), batch.labels)
        rows["float64_at_our_weights"].append(exact.item())
        rows["ours"].append(trainer.train_step([batch], options.lr).item())
        for name, network in plain.items():
            sgd[name].zero_grad()
            images = batch.images.to(network.fc.weight.dtype).contiguous()
            loss = F.cross_entropy(network(images), batch.labels)
            loss.backward()
            sgd[name].step()
            rows[name].append(loss.item())
    return {
        "what": "losses of the first steps of recipe seed on CIFAR-10 images: our engine against plain loops",
        "model": options.model,
        "batch_size": options.batch_size,
        "amp": options.amp,
        "lr": options.lr,
        "losses": rows,
        "largest_relative_difference": {
            f"{ours} to {exact}": max(abs(a - b) / b for a, b in zip(rows[ours], rows[exact], strict=True))
            for ours, exact in (
                ("ours", "float64_at_our_weights"),
                ("ours", "float64"),
                ("plain_float32", "float64"),
            )
        },
        "environment": devices.environment(device),
        "date": date.today().isoformat(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m attnet.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="attention92")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9, help="measured steps of each kind (default 9)")
    parser.add_argument("--amp", default="O0")
    parser.add_argument("--device_type", default="auto")
    parser.add_argument("--reference", type=Path, help="a copy of the reference repository's inner folder")
    parser.add_argument("--output", help="JSON file to write; relative to the repository root")
    parser.add_argument("--losses", type=int, default=0, help="instead of timing, compare this many losses to float64")
    parser.add_argument("--ranks", type=int, default=0, help="instead of a step, compare this many ranks with one")
    parser.add_argument("--train_images", type=int, default=50000, help="images of an epoch for --ranks")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate for --losses (default 0.1)")
    parser.add_argument("--data_path", default="data/cifar-10-batches-py", help="CIFAR-10 for --losses")
    parser.add_argument("--worker", choices=("ours", "reference"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options)
        return 0
    words = list(sys.argv[1:] if arguments is None else arguments)
    kind = compare_losses if options.losses else measure_ranks if options.ranks else measure
    result = kind(options) | {"command": "python -m attnet.benchmark " + shlex.join(words)}
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        resolve_path(options.output).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
