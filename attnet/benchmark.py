"""Measure the training step, beside the reference repository's own network and loop when a copy is at hand.

    python -m attnet.benchmark --reference path/to/Residual-Attention-Network --output data/results/cpu_step.json

The copy needs one change to run on Python 3: `output_channels/4` to `output_channels//4` in model/basic_layers.py.
Steps of both are interleaved, so that a change in the machine's speed meets both; figures are medians.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet import device as devices
from attnet.batches import TrainBatches
from attnet.config import RECIPES, resolve_path
from attnet.data import load_dataset
from attnet.device import Device
from attnet.model import build_model
from attnet.precision import Precision

REFERENCE_CLASS = "ResidualAttentionModel_92_32input_update"


def our_step(device: Device, model_name: str, batch_size: int, amp: str) -> Callable[[], Tensor]:
    """One training step of the engine, batch making included, as a function that returns the loss."""
    recipe = RECIPES["seed"]
    torch.manual_seed(0)
    model = build_model(model_name).to(device.torch_device, memory_format=torch.channels_last)
    precision = Precision(model, device, amp, momentum=recipe["momentum"], weight_decay=recipe["weight_decay"])
    batches = TrainBatches(load_dataset(None, "shapes").train, batch_size, device.torch_device)

    def endless():
        epoch = 0
        while True:
            yield from batches.epoch(epoch)
            epoch += 1

    stream = endless()
    model.train()

    def step() -> Tensor:
        [batch] = next(stream)
        with precision.autocast():
            logits = model(batch.images.to(precision.input_dtype))
        loss = F.cross_entropy(logits.float(), batch.labels)
        precision.backward(loss)
        precision.step(recipe["lr"])
        return loss

    return step


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


def interleaved(steps: dict[str, Callable[[], object]], rounds: int, device: Device) -> dict[str, list[float]]:
    """Seconds of each call, `rounds` times each in turn, after one unmeasured round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            device.synchronize()
            begun = time.perf_counter()
            step()
            device.synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def _in_fresh_process(code: str) -> Callable[[], str]:
    def call() -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    return call


def _peak_memory(device: Device, which: str, options: argparse.Namespace) -> int:
    """Bytes at peak of a process that takes three steps of one kind."""
    call = {
        "ours": f"b.our_step(d, {options.model!r}, {options.batch_size}, {options.amp!r})",
        "reference": f"b.reference_step(d, Path({str(options.reference)!r}), {options.batch_size})",
    }[which]
    code = (
        "from pathlib import Path; import attnet.benchmark as b; from attnet.device import Device\n"
        f"d = Device({device.kind!r}, {device.index})\nstep = {call}\n"
        "for _ in range(3): step()\nprint(d.peak_memory())"
    )
    return int(_in_fresh_process(code)())


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Step, import time and memory; `ratio` is the reference's seconds over ours, step by step."""
    device = devices.choose(options.device_type)
    steps = {"ours": our_step(device, options.model, options.batch_size, options.amp)}
    if options.reference:
        steps["reference"] = reference_step(device, options.reference, options.batch_size)
    seconds = interleaved(steps, options.rounds, device)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    imports = {name: _in_fresh_process(f"import {name}") for name in ("torch", "attnet")}
    import_seconds = interleaved(imports, 7, Device("CPU"))
    result: dict[str, object] = {
        "what": "one training step, float32 unless amp says otherwise; medians of interleaved steps",
        "model": options.model,
        "batch_size": options.batch_size,
        "amp": options.amp,
        "images_per_second": {name: options.batch_size / value for name, value in medians.items()},
        "step_seconds": {name: {"median": medians[name], "all": values} for name, values in seconds.items()},
        "peak_memory_bytes": {name: _peak_memory(device, name, options) for name in steps},
        "import_seconds": {name: statistics.median(values) for name, values in import_seconds.items()},
        "environment": devices.environment(device),
        "date": date.today().isoformat(),
    }
    if options.reference:
        ratios = sorted(r / o for r, o in zip(seconds["reference"], seconds["ours"], strict=True))
        result["ratio"] = {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
    return result


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
    options = parser.parse_args(arguments)
    words = list(sys.argv[1:] if arguments is None else arguments)
    result = measure(options) | {"command": "python -m attnet.benchmark " + shlex.join(words)}
    text = json.dumps(result, indent=2)
    print(text)
    if options.output:
        resolve_path(options.output).write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
