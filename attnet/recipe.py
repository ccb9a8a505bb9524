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

    With `lr_batch` the full rate is lr * images a step / lr_batch. It is reached in a straight line within
    `warmup_epochs`: from `lr` where the batch scaled it up (Goyal et al., 2017), else from 0. Then schedule `step`
    divides it by 10 after 30, 60 and 90 % of all epochs; `cosine` lets it glide to 0 at the end (Loshchilov and
    Hutter, "SGDR", 2017, without restarts); `onecycle` takes it there in a straight line (Smith and Topin,
    "Super-Convergence", 2018, without momentum's cycle).
    """
    images = config.train_batch_size * config.accumulate * config.device_num
    full = config.lr * (images / config.lr_batch if config.lr_batch else 1)
    if done < config.warmup_epochs:
        start = config.lr if full > config.lr else 0
        return start + (full - start) * done / config.warmup_epochs
    if config.schedule == "step":
        drops = sum(10 * int(done) >= tenths * config.total_epochs for tenths in (3, 6, 9))
        return full / 10**drops
    left = (config.total_epochs - done) / max(config.total_epochs - config.warmup_epochs, 1e-9)  # 1 down to 0
    left = min(max(left, 0), 1)
    return full * (left if config.schedule == "onecycle" else (1 - math.cos(math.pi * left)) / 2)


def batch_loss(logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy, nats; with mixup, weighted between both labels (Zhang et al., 2018).

    `label_smoothing` of each label is spread evenly over all classes (Szegedy et al., 2016).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    if batch.other_labels is None:
        return loss
    other = F.cross_entropy(logits, batch.other_labels, label_smoothing=label_smoothing)
    return batch.weight * loss + (1 - batch.weight) * other
