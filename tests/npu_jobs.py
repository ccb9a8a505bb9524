"""What tests/engine/test_npu.py has done in a process with simulated NPUs, as functions: plain values in and out."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import signal
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

import attnet
from attnet.base import device as devices
from attnet.base.processes import TrainingInterrupted
from attnet.data.batches import TestBatches
from attnet.engine import precision, step
from attnet.masks.compare import compare_deletion, compare_localisation
from attnet.masks.reduce import REDUCTIONS, attention_maps
from attnet.masks.replace import INTERVENTIONS, effects
from attnet.masks.saliency import grad_cam
from attnet.masks.statistics import mask_statistics
from attnet.masks.statistics import signal as signals_of
from attnet.model.modules import PARTS

TINY = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "progress": "none"},
    "channels_last": False,  # as on an NPU: the CPU's sums depend on it in the last digit
    **{"train_images": 64, "test_images": 40, "test_batch_size": 25, "train_batch_size": 16, "total_epochs": 2},
}


def config(**changes: object) -> attnet.TrainConfig:
    return attnet.TrainConfig(**{**TINY, "device_type": "NPU", **changes})


def unfused() -> contextlib.AbstractContextManager:
    """SGD's plain kernels on the CPU as well: the fused one rounds the last few numbers of a tensor otherwise."""
    return mock.patch.object(devices.KINDS["CPU"], "has_fused_optimizer", lambda self, dtype: False)


def train(**changes: object) -> dict:
    """A run: its losses and Top-1 of each epoch, and what result.json says of it."""
    with unfused():
        result = attnet.fit(config(**changes))
    return {
        "losses": [row["train_loss"] for row in result.history],
        "top1": [row["top1"] for row in result.history],
        "device": result.device,
        "card": result.environment["device"],
        "amp": result.amp,
        "skipped": result.skipped_steps,
        "memory": result.peak_memory,
        "folder": str(result.output_dir),
    }


def train_from_scale(scale: float, **changes: object) -> dict:
    """A run whose dynamic loss scale begins at `scale`."""
    usual, precision.FIRST_SCALE = precision.FIRST_SCALE, scale
    try:
        return train(loss_scale="dynamic", **changes)
    finally:
        precision.FIRST_SCALE = usual


def train_until(steps: int, **changes: object) -> str:
    """A run that is asked to stop after so many steps, as by a batch system; its last words."""
    whole, left = step.TrainStep.__call__, steps

    def take(self: step.TrainStep, micro_batches: list, lr: float) -> Tensor:
        nonlocal left
        loss = whole(self, micro_batches, lr)
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGTERM)
        return loss

    step.TrainStep.__call__ = take
    try:
        with unfused():
            attnet.fit(config(**changes))
    except TrainingInterrupted as stop:
        return str(stop)
    finally:
        step.TrainStep.__call__ = whole
    raise AssertionError("the run went on to its end")


def tensors_of(path: str) -> list[str]:
    """Device types of all tensors of a file, read as it lies on the disk."""
    found = set()

    def walk(value: object) -> None:
        if isinstance(value, Tensor):
            found.add(value.device.type)
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(item)

    walk(torch.load(path, weights_only=True))
    return sorted(found)


def cards() -> dict:
    """What attnet.base.device says of the machine."""
    chosen = devices.choose()
    return {
        "kind": chosen.kind,
        "name": chosen.name,
        "count": devices.count("NPU"),
        "backend": chosen.backend,
        "half": [str(dtype) for dtype in chosen.half_types],
        "total": chosen.memory().total,
    }


def rng(index: int) -> list[bool]:
    """Whether draws repeat: after seeding, after the card's state was put back, and (they must not) without."""
    card = devices.choose("NPU", index)
    with card.working():
        devices.seed_everything(3)
        state = card.rng_state()
        first = torch.rand(5, device=card.torch_device)
        second = torch.rand(5, device=card.torch_device)
        card.set_rng_state(state)
        again = torch.rand(5, device=card.torch_device)
        devices.seed_everything(3)
        seeded = torch.rand(5, device=card.torch_device)
    return [torch.equal(first, again), torch.equal(first, seeded), torch.equal(first, second)]


def looks(model: torch.nn.Module, data: attnet.data.splits.Dataset) -> dict[str, object]:
    """Everything there is to see in a network, by name: tensors, and dataclasses of numbers."""
    split = data.test.subset(6)
    images, few = split.images, split.images[:2]
    found: dict[str, object] = {}
    captured = attnet.capture(model, images, parts=(*PARTS, "scales"))
    for name, parts in captured.features.items():
        found |= {f"{name} {part}": value for part, value in parts.items()}
    for how in REDUCTIONS:
        found |= {f"{how} {name}": map_ for name, map_ in attention_maps(model, images, "mask", how).items()}
    batches = TestBatches(split, 5, captured.logits.device)
    return found | {
        "logits": captured.logits,
        "grad-cam": grad_cam(model, images),
        "statistics": mask_statistics(model, images),
        "signal": signals_of(model, images),
        "effects": effects(model, images, split.labels, INTERVENTIONS, ["stage1.0"]),
        "localisation": compare_localisation(model, split, modules=["stage1.0"]),
        "deletion": compare_deletion(model, few, modules=["stage1.0"], reductions=("std",), steps=5),
        "evaluation": attnet.evaluate(model, batches, data.classes).logits,
    }


def plain(value: object) -> object:
    """Tensors on the CPU, in dicts and lists of what dataclasses hold."""
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def look_into_a_network(index: int) -> dict[str, bool]:
    """The shipped network's masks and all that is computed from them on a card: the same as on the CPU?"""
    data = attnet.load_dataset(None, "shapes")
    network = attnet.load_pretrained("attention56_shapes")
    here = looks(network.model.to(memory_format=torch.contiguous_format), data)
    there = looks(attnet.load_pretrained("attention56_shapes", device_type="NPU", device_id=index).model, data)
    assert there["logits"].device == torch.device("npu", index)
    return {name: repr(plain(here[name])) == repr(plain(there[name])) for name in here}


def explore(device_type: str, folder: str) -> list[list[str]]:
    """The explorer: a digest of its picture and its message after every move."""
    from attnet.plots.viewer.explorer import Explorer

    network = attnet.load_pretrained(device_type=device_type, device_id=0)
    network.model.to(memory_format=torch.contiguous_format)
    data = attnet.load_dataset(None, "shapes")
    explorer = Explorer(network, data, folder=folder)
    found = []
    image = {"image": {"set": "test", "n": 7}}
    moves = [image, {"module": "stage1.0"}, {"part": "Grad-CAM"}, {"part": "trunk"}, {"reduction": "pca"}]
    for changes in [*moves, {"replaced": "shuffled"}]:
        explorer.move(**changes)
        found.append([hashlib.sha256(explorer.png + explorer.numbers).hexdigest(), explorer.said.get("text", "")])
    return found


def draw_figure(path: str) -> None:
    """The paper's figure from a network on a card."""
    from attnet.plots import plot_figure1

    network, data = attnet.open_pretrained("attention56_shapes", device_type="NPU")
    plot_figure1(network.model, data.test.images[:2], classes=network.classes).savefig(path)


def measure_step() -> dict:
    """Steps of the benchmark's process."""
    from attnet.benchmark.loops import Setting, steps_worker

    with steps_worker(Setting("attention56_tiny", 8, "O2", channels_last=False), "NPU") as worker:
        return {what: worker.ask(what=what)["answer"] for what in ("step", "parts", "peak")}


def sweep_on_two_cards(folder: str) -> list[int]:
    """The cards that two runs at once were given."""
    from attnet.study.sweeps.sweep import Sweep

    small = config(total_epochs=1, train_images=32)
    Sweep({"tiny": small}, seeds=[0, 1], folder=folder).run(parallel=2)
    runs = Path(folder).glob("tiny/*/config.json")
    return sorted(attnet.TrainConfig.load(path).device_id for path in runs)


def plan_lines(**changes: object) -> str:
    return attnet.make_plan(config(**changes)).describe()
