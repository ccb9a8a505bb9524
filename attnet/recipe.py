"""What a recipe says about learning: the rate of each step, and the loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attnet.batches import Batch
from attnet.config import TrainConfig


def learning_rate(config: TrainConfig, done: float) -> float:
    """The rate of SGD after `done` epochs (a fraction within one).

    Schedule `step` divides it by 10 after 30, 60 and 90 % of the epochs; `cosine` lets it glide to 0 at the end
    (Loshchilov and Hutter, "SGDR", 2017, without restarts). With `lr_batch`, the rate is multiplied by images a
    step / lr_batch, which `warmup_epochs` reach step by step.
    """
    images = config.train_batch_size * config.accumulate * config.device_num
    full = config.lr * (images / config.lr_batch if config.lr_batch else 1)
    if done < config.warmup_epochs:
        return config.lr + (full - config.lr) * done / config.warmup_epochs
    if config.schedule == "cosine":
        return full * (1 + math.cos(math.pi * min(done / config.total_epochs, 1))) / 2
    drops = sum(10 * int(done) >= tenths * config.total_epochs for tenths in (3, 6, 9))
    return full / 10**drops


def batch_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy, nats; with mixup, weighted between both labels."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits, batch.labels)
    if batch.other_labels is None:
        return loss
    return batch.weight * loss + (1 - batch.weight) * F.cross_entropy(logits, batch.other_labels)
