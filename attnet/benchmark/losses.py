"""Losses of the first training steps: our engine against plain loops in float32 and float64 on the same batches."""

from __future__ import annotations

import argparse
import copy
from datetime import date

import torch
import torch.nn.functional as F

from attnet.base import device as devices
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan


def compare_losses(options: argparse.Namespace) -> dict[str, object]:
    """The first `options.losses` steps of recipe `seed` on CIFAR-10 images.

    The plain loop is the reference's: contiguous tensors, torch's SGD, no engine. `float64_at_our_weights` takes
    our weights at each step, which leaves out how far two trainings drift apart.

    Args:
        options: model, batch_size, amp, losses, lr, data_path and device_type.
    """
    trainer = Trainer(
        make_plan(
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
    )
    stream = trainer.train_batches.epoch(0)
    trainer.train_step.train()
    plain = {
        name: copy.deepcopy(trainer.model).to(dtype).to(memory_format=torch.contiguous_format)
        for name, dtype in (("plain_float32", torch.float32), ("float64", torch.float64))
    }
    sgd = {
        name: torch.optim.SGD(net.parameters(), lr=options.lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
        for name, net in plain.items()
    }
    rows: dict[str, list[float]] = {name: [] for name in ("ours", *plain, "float64_at_our_weights")}
    for _, [batch] in zip(range(options.losses), stream, strict=False):
        same = copy.deepcopy(plain["float64"])
        same.load_state_dict(trainer.train_step.weights())
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
        "kind": "losses",
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
        "environment": devices.environment(trainer.device),
        "date": date.today().isoformat(),
    }
