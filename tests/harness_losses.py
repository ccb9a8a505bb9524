"""Losses of the first training steps: our engine against plain loops in float32 and float64 on the same batches.

    python tests/harness_losses.py --output data/results/attention92_losses.json
    python tests/harness_losses.py --lr 0.001 --output data/results/attention92_losses_low_lr.json

Not collected by pytest: attention92 takes minutes in float64. The plain loop is the reference's: contiguous tensors,
torch's SGD, no engine. `float64_at_our_weights` takes our weights at each step, which leaves out how far two
trainings drift apart.
"""

import argparse
import copy
import shlex
import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from attnet.base.errors import in_sentences
from attnet.base.files.outputs import output_file, write_record
from attnet.base.host import environment
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan

PAIRS = (("ours", "float64_at_our_weights"), ("ours", "float64"), ("plain_float32", "float64"))


def losses_of(plan: Plan, steps: int, lr: float) -> dict[str, list[float]]:
    """Name -> the loss of each of the first steps, nats: "ours", "plain_float32", "float64", and
    "float64_at_our_weights"."""
    trainer = Trainer(plan)
    trainer.train_step.train()
    plain = {
        name: copy.deepcopy(trainer.model).to(dtype).to(memory_format=torch.contiguous_format)
        for name, dtype in (("plain_float32", torch.float32), ("float64", torch.float64))
    }
    sgd = {
        name: torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
        for name, net in plain.items()
    }
    rows: dict[str, list[float]] = {name: [] for name in ("ours", *plain, "float64_at_our_weights")}
    for _, [batch] in zip(range(steps), trainer.train_batches.epoch(0), strict=False):
        same = copy.deepcopy(plain["float64"])
        same.load_state_dict(trainer.train_step.weights())
        with torch.no_grad():
            exact = F.cross_entropy(same(batch.images.double().contiguous()), batch.labels)
        rows["float64_at_our_weights"].append(exact.item())
        rows["ours"].append(trainer.train_step([batch], lr).item())
        for name, network in plain.items():
            sgd[name].zero_grad()
            images = batch.images.to(network.fc.weight.dtype).contiguous()
            loss = F.cross_entropy(network(images), batch.labels)
            loss.backward()
            sgd[name].step()
            rows[name].append(loss.item())
    return rows


def largest_differences(losses: dict[str, list[float]]) -> dict[str, float]:
    """For each of PAIRS the largest relative difference."""
    return {
        f"{ours} to {exact}": max(abs(a - b) / b for a, b in zip(losses[ours], losses[exact], strict=True))
        for ours, exact in PAIRS
    }


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="attention92")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--amp", default="O0")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--data_path", default="data/cifar-10-batches-py", help="CIFAR-10")
    parser.add_argument("--device_type", default="auto")
    parser.add_argument("--output", help="JSON file; relative to the repository root")
    typed = sys.argv[1:] if arguments is None else list(arguments)
    options = parser.parse_args(typed)
    output = output_file(options.output, (".json",)) if options.output else None
    plan = make_plan(
        TrainConfig(
            mode="full",
            dataset="cifar10",
            data_path=options.data_path,
            train_images=0,
            test_images=10,
            model=options.model,
            train_batch_size=options.batch_size,
            amp=options.amp,
            device_type=options.device_type,
        )
    )
    losses = losses_of(plan, options.steps, options.lr)
    found = {
        "kind": "losses",
        "what": "losses of the first steps of recipe seed on CIFAR-10 images: our engine against plain loops",
        "model": options.model,
        "batch_size": options.batch_size,
        "amp": options.amp,
        "lr": options.lr,
        "losses": losses,
        "largest_relative_difference": largest_differences(losses),
        "environment": environment(plan.device),
    }
    if output:
        write_record(output, found, shlex.join(["python", "tests/harness_losses.py", *typed]))
    for pair, difference in found["largest_relative_difference"].items():
        print(f"{pair}: at most {difference:.1e} apart")
    return 0


if __name__ == "__main__":
    sys.exit(main())
