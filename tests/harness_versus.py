r"""Our training step beside the reference repository's own network and loop, and what importing takes.

    python tests/harness_versus.py --reference path/to/Residual-Attention-Network --amp O0,O2 \
        --output data/results/cpu_step.json

Not collected by pytest: it needs a copy of the reference repository. The copy needs one change to run on Python 3:
`output_channels/4` to `output_channels//4` in its model/basic_layers.py. The reference and each opt level of ours
(`--amp O0,O2`) have a process of their own, and they take steps in turn. The reference's images are on the device
already, which favours it. With --operators, the seconds of each operator of a step, as `attnet benchmark --profile`
gives them of ours alone.
"""

import argparse
import contextlib
import importlib
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn

from attnet.base import device as devices
from attnet.base.errors import ConfigError, in_sentences
from attnet.base.files.outputs import output_file, write_record
from attnet.base.files.paths import resolve_path
from attnet.base.host import environment
from attnet.benchmark import profile
from attnet.benchmark.loops import LR, Setting, answers, steps_worker
from attnet.benchmark.steps import spread, usual_format
from attnet.benchmark.tables import spread_words
from attnet.benchmark.worker import Worker, answer_parent

MODEL = "attention92"  # our name of the reference's network
REFERENCE_CLASS = "ResidualAttentionModel_92_32input_update"
IMPORTS = 7  # rounds


class ReferenceLoop:
    """One step of the reference's loop (its train.py) on its own network: float32, contiguous tensors."""

    def __init__(self, folder: Path, batch_size: int, device: torch.device) -> None:
        self.network = reference_network(folder).to(device).train()
        self.criterion = nn.CrossEntropyLoss()
        parameters = self.network.parameters()
        self.sgd = torch.optim.SGD(parameters, lr=LR, momentum=0.9, nesterov=True, weight_decay=0.0001)
        self.images = torch.rand(batch_size, 3, 32, 32, device=device)
        self.labels = torch.randint(10, (batch_size,), device=device)

    def step(self) -> None:
        self.sgd.zero_grad()
        self.criterion(self.network(self.images), self.labels).backward()
        self.sgd.step()


def reference_network(folder: Path) -> nn.Module:
    """The reference's own network from a copy of its inner folder, the one that holds model/."""
    sys.path.insert(0, str(folder))
    try:
        return getattr(importlib.import_module("model.residual_attention_network"), REFERENCE_CLASS)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"reference={folder}: no {REFERENCE_CLASS} in model/residual_attention_network.py there ({error}); "
            "give the inner folder of a copy of the reference repository"
        ) from error


def reference_worker(options: argparse.Namespace, warm_up: int) -> Worker:
    """A process that takes the reference's steps, as `attnet.benchmark.loops.steps_worker` does ours."""
    job = {"folder": str(options.reference), "batch_size": options.batch_size, "device_type": options.device_type}
    return Worker(__file__, "--worker", job=job | {"warm_up": warm_up})


def work(job: argparse.Namespace) -> Iterator[dict]:
    """The process of `reference_worker`."""
    device = devices.choose(job.device_type)
    loop = (Path(job.folder), job.batch_size, device.torch_device)
    yield from answers(device, lambda: ReferenceLoop(*loop), job.warm_up)


def settings(options: argparse.Namespace) -> list[Setting]:
    """What is measured of ours: a setting for each opt level."""
    last = (options.memory_format or usual_format(options.device_type)) == "channels_last"
    return [Setting(MODEL, options.batch_size, amp, last, options.compile) for amp in options.amp.split(",")]


@contextlib.contextmanager
def all_sides(options: argparse.Namespace, warm_up: int = 0) -> Iterator[list[Worker]]:
    """A process for each of `settings`, and last the reference's."""
    with contextlib.ExitStack() as stack:
        kind, enter = options.device_type, stack.enter_context
        ours = [enter(steps_worker(setting, kind, warm_up=warm_up)) for setting in settings(options)]
        yield [*ours, enter(reference_worker(options, warm_up))]


def steps_of_all(options: argparse.Namespace) -> dict[str, object]:
    """Steps of all in turn, a row each; a row's `ratio` is the reference's seconds over its own."""
    with all_sides(options) as workers:
        rounds = [[worker.ask(what="step")["answer"] for worker in workers] for _ in range(options.rounds)]
        peaks = [int(worker.ask(what="peak")["answer"]) for worker in workers]
    sides = [("ours", setting) for setting in settings(options)]
    sides += [("reference", Setting(MODEL, options.batch_size, "O0", channels_last=False))]
    rows = [
        {"implementation": who, **setting.to_dict()}
        | {"images_per_second": options.batch_size / statistics.median(seconds)}
        | {"step_seconds": seconds, "peak_memory_bytes": peak}
        | {"ratio": spread([row[-1] / own for row, own in zip(rounds, seconds, strict=True)])}
        for (who, setting), seconds, peak in zip(sides, zip(*rounds, strict=True), peaks, strict=True)
    ]
    return {
        "kind": "versus",
        "what": "one training step; medians of steps taken in turn, each kind in a process of its own",
        "rows": rows,
        "import_seconds": import_seconds(),
    }


def operators_of_both(options: argparse.Namespace) -> dict[str, object]:
    """Seconds by operator of ours and of the reference, round by round in turn.

    Raises:
        ConfigError: several opt levels.
    """
    if "," in options.amp:
        raise ConfigError(f"amp={options.amp}: --operators looks at one opt level, such as --amp O0")
    found: dict[str, list[dict[str, float]]] = {"ours": [], "reference": []}
    with all_sides(options, warm_up=1) as workers:
        for _ in range(options.rounds):
            for side, worker in zip(found, workers, strict=True):
                found[side].append(worker.ask(what="operators")["answer"])
    about = {"model": MODEL, "batch_size": options.batch_size, "amp": options.amp}
    about["memory_format"] = options.memory_format or usual_format(options.device_type)
    return {"kind": "profile", "what": profile.WHAT, **about, **profile.by_operator(found)}


def import_seconds(rounds: int = IMPORTS) -> dict[str, float]:
    """Median seconds of fresh processes, in turn: one imports torch, the other all that training needs."""
    codes = {"torch": "import torch", "attnet": "from attnet.engine.fit import fit"}
    seconds: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, values in seconds.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", codes[name]], check=True)
            values.append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="inner folder of a copy of the repository")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--amp", default="O0", help="of ours, as the next two; several with commas")
    parser.add_argument("--memory_format", choices=("channels_last", "contiguous"), help="default: as trained")
    parser.add_argument("--compile", default="off", choices=("off", "on", "graphs"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device_type", default="auto")
    parser.add_argument("--operators", action="store_true")
    parser.add_argument("--output", help="JSON file; relative to the repository root")
    typed = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(typed)
    options.reference = resolve_path(options.reference)
    output = output_file(options.output, (".json",)) if options.output else None
    found = operators_of_both(options) if options.operators else steps_of_all(options)
    found["environment"] = environment(devices.choose(options.device_type))
    if output:
        write_record(output, found, shlex.join(["python", "tests/harness_versus.py", *typed]))
    for row in found.get("rows", ()):
        speed = f"{row['implementation']} {row['amp']}: {row['images_per_second']:.1f} images/s"
        print(f"{speed}; reference / this, step by step: {spread_words(row['ratio'])}")
    if "kinds" in found:
        print(found["kinds"])
    return 0


if __name__ == "__main__":
    sys.exit(answer_parent(work) if "--worker" in sys.argv else main())
