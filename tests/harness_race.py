r"""Accuracy at equal processor time: the reference repository's own training beside a run of ours.

    attnet train --mode full --model attention92 --recipe fast94 --total_epochs 3 --output_dir runs/attention92 …
    python tests/harness_race.py --reference path/to/Residual-Attention-Network --run runs/attention92 \
        --folder runs/reference --output data/results/attention92_race.json

Not collected by pytest: it needs a copy of the reference repository, as `harness_versus.py` says, and as long as the
run took. The reference's network learns as its train.py has it (float32, contiguous tensors, batch 64, SGD at rate
0.1, images mirrored and cropped) from the images of the run. Three things favour it: its images are on the device
already, its tests cost it nothing, where ours are counted, and the best of its tests so far is taken. Stopped, it goes
on from its last test. It may be begun while the run goes on, which it then waits for as it trains.
"""

import argparse
import itertools
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from harness_versus import MODEL, reference_network

from attnet.base.errors import ConfigError, in_sentences
from attnet.base.files.atomic import save
from attnet.base.files.outputs import output_file, write_record
from attnet.base.files.paths import resolve_path
from attnet.base.host import environment, usable_cores
from attnet.base.progress import say
from attnet.engine.names import CONFIG
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan
from attnet.engine.result import Result
from attnet.engine.run_folder import is_finished

STEP = 30.0  # processor seconds: it stops after a step, so it may have had most of one more than ours
BATCH, LR = 64, 0.1  # its train.py; the rate falls for the first time after 90 epochs
IMAGES = ("data_path", "dataset", "classes", "train_images", "test_images", "label_noise", "noise_seed")
SAME = (*IMAGES, "seed", "device_type")


class Reference:
    """The reference's training, tested every `every` steps; `curve` has a row a test.

    Raises:
        ConfigError: what is kept was trained from other images or from another seed.
    """

    def __init__(self, folder: Path, plan: Plan, kept: Path) -> None:
        self.plan, self.kept = plan, kept
        self.training = {name: getattr(plan.config, name) for name in SAME}
        self.network = reference_network(folder).to(plan.device.torch_device)
        parameters = self.network.parameters()
        self.sgd = torch.optim.SGD(parameters, lr=LR, momentum=0.9, nesterov=True, weight_decay=0.0001)
        self.steps, self.seconds, self.curve = 0, 0.0, []
        if kept.exists():
            state = torch.load(kept, weights_only=True)
            for name, value in self.training.items():
                if value != (had := state["training"][name]):
                    raise ConfigError(f"folder={kept.parent}: that had {name}={had}, this is {value}; give another")
            self.network.load_state_dict(state["model"])
            self.sgd.load_state_dict(state["sgd"])
            self.steps, self.seconds, self.curve = state["steps"], state["seconds"], state["curve"]

    def train(self, until: Callable[[], float], every: int) -> None:
        """Go on until `until()` processor seconds, asked after each step, are spent on steps."""
        if self.seconds >= until():
            return
        batches = self.plan.train_batches()
        epoch, done = divmod(self.steps, len(batches))
        losses = []
        self.network.train()
        before = time.process_time()
        for batch in itertools.chain.from_iterable(
            batches.epoch(number, done if number == epoch else 0) for number in itertools.count(epoch)
        ):
            self.sgd.zero_grad()
            loss = F.cross_entropy(self.network(batch[0].images.contiguous()), batch[0].labels)
            loss.backward()
            self.sgd.step()
            losses.append(loss.item())
            self.steps += 1
            spent = self.seconds + time.process_time() - before
            ends = spent >= until()
            if self.steps % every == 0 or ends:
                self.seconds = spent
                self.record(sum(losses) / len(losses))
                if ends:
                    return
                losses = []
                self.network.train()
                before = time.process_time()

    @torch.no_grad()
    def record(self, train_loss: float) -> None:
        """Test, say where it stands, and keep it."""
        self.network.eval()
        right = total = 0
        for batch in self.plan.test_batches():
            right += (self.network(batch.images.contiguous()).argmax(1) == batch.labels).sum().item()
            total += len(batch.labels)
        row = {"images": self.steps * BATCH, "processor_seconds": self.seconds}
        self.curve.append(row | {"train_loss": train_loss, "top1": 100 * right / total})
        say(f"reference: {row['images']:,} images, {self.seconds / 3600:.2f} h, {self.curve[-1]['top1']:.2f} %")
        state = {"model": self.network.state_dict(), "sgd": self.sgd.state_dict(), "curve": self.curve}
        save(state | {"steps": self.steps, "seconds": self.seconds, "training": self.training}, self.kept)


def curve_of(history: Sequence[dict]) -> list[dict[str, float]]:
    """Epochs of a run of ours as the reference's curve has them; `processor_seconds` with the tests."""
    spent = itertools.accumulate(row["processor_seconds"] for row in history)
    names = ("train_loss", "top1", "image_size")
    return [
        {"epoch": row["epoch"], "processor_seconds": seconds} | {name: row[name] for name in names if name in row}
        for row, seconds in zip(history, spent, strict=True)
    ]


def beside(ours: Sequence[dict], theirs: Sequence[dict]) -> list[dict[str, float | None]]:
    """After each epoch of ours: its Top-1, and the reference's best so far, with the time of the last test that could
    count; None before the first."""
    rows = []
    for row in ours:
        so_far = [their for their in theirs if their["processor_seconds"] <= row["processor_seconds"] + STEP]
        rows.append(
            {
                "processor_hours": row["processor_seconds"] / 3600,
                "ours": row["top1"],
                "reference": max((their["top1"] for their in so_far), default=None),
                "reference_tested": so_far[-1]["processor_seconds"] / 3600 if so_far else None,
            }
        )
    return rows


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Train the reference as long as the run took, and write both curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="inner folder of a copy of the repository")
    parser.add_argument("--run", required=True, help=f"run of {MODEL} of ours, finished or at work")
    parser.add_argument("--folder", required=True, help="where the reference's training is kept")
    parser.add_argument("--every", type=int, default=195, help="steps between its tests")
    parser.add_argument("--output", required=True, help="JSON file; relative to the repository root")
    typed = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(typed)
    output, run, folder = output_file(options.output, (".json",)), *map(resolve_path, (options.run, options.folder))
    config = TrainConfig.load(run / CONFIG)
    if config.model != MODEL or config.device_num != 1:
        raise ConfigError(f"run={options.run}: {config.model} on {config.device_num} cards; give a run of {MODEL} on 1")
    same = {name: getattr(config, name) for name in SAME}
    batches = {"train_batch_size": BATCH, "test_batch_size": 100}
    plan = make_plan(TrainConfig(**same, **batches, mode="full", recipe="seed", model=MODEL, amp="O0"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    reference = Reference(resolve_path(options.reference), plan, folder / "reference.pt")

    def whole() -> float:
        if not is_finished(run):
            return math.inf
        torch.set_num_threads(usable_cores())  # the run's are free
        return curve_of(Result.load(run).history)[-1]["processor_seconds"]

    reference.train(whole, options.every)
    ours = curve_of(Result.load(run).history)
    content = {
        "kind": "race",
        "what": f"{MODEL}: Top-1 (%) of test images by processor seconds, the reference's own training beside ours",
        "training": {name: value for name, value in config.given().items() if name != "output_dir"},
        "ours": ours,
        "reference": reference.curve,
        "beside": beside(ours, reference.curve),
        "environment": environment(plan.device),
    }
    write_record(output, content, shlex.join(["python", "tests/harness_race.py", *typed]))
    for row in content["beside"]:
        theirs = "-" if row["reference"] is None else f"{row['reference']:.2f} %"
        print(f"{row['processor_hours']:.2f} processor hours: ours {row['ours']:.2f} %, the reference {theirs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
