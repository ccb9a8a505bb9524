"""Measuring a network on a test set: loss, Top-1, per-class accuracy, confusion matrix, the mistakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.batches import TestBatches
from attnet.model import build_model, evaluating
from attnet.plan import Plan
from attnet.weights import load_weights


@dataclass(frozen=True)
class Evaluation:
    """Outputs of a network on a split, in the split's order, on the CPU.

    `logits` float32 [N, K], `labels` int64 [N]; everything else follows from them.
    """

    logits: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    @property
    def predictions(self) -> Tensor:
        """The class with the largest logit, int64 [N]."""
        return self.logits.argmax(dim=1)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        return F.cross_entropy(self.logits.double(), self.labels).item()

    @property
    def top1(self) -> float:
        """Share of right predictions, per cent."""
        return 100 * (self.predictions == self.labels).double().mean().item()

    @property
    def confusion(self) -> Tensor:
        """How many images of class i were taken for class j: int64 [K, K] at [i, j]."""
        k = self.logits.shape[1]
        return (self.labels * k + self.predictions).bincount(minlength=k * k).view(k, k)

    @property
    def per_class(self) -> dict[str, float]:
        """Top-1 of each class, per cent; nan for a class without images."""
        table = self.confusion[: len(self.classes), :].double()
        rates = 100 * table.diagonal() / table.sum(dim=1)
        return dict(zip(self.classes, rates.tolist(), strict=True))

    def mistakes(self, n: int) -> Tensor:
        """Indices of the `n` wrong predictions the network was surest of, surest first: int64 [<= n]."""
        confidence = self.logits.softmax(dim=1).amax(dim=1)
        confidence[self.predictions == self.labels] = -1
        order = confidence.argsort(descending=True)
        return order[: min(n, int((confidence >= 0).sum()))]


def evaluate(
    model: nn.Module,
    batches: TestBatches,
    classes: tuple[str, ...],
    *,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    input_dtype: torch.dtype = torch.float32,
) -> Evaluation:
    """Run `model` in evaluation mode over `batches`; the mode of its every part is put back afterwards.

    Results stay on the device until the end: one transfer for the whole set.
    """
    with evaluating(model), autocast():
        logits = [model(batch.images.to(input_dtype)) for batch in batches]
    outputs = torch.cat(logits).float().cpu() if logits else torch.empty(0, len(classes))
    return Evaluation(outputs, batches.labels.cpu(), classes)


def evaluate_weights(plan: Plan, weights: str | Path | Mapping[str, Tensor]) -> Evaluation:
    """Evaluate weights (ours or a reference checkpoint, file or state dict) on the plan's test images, in float32.

    Raises:
        WeightsError: weights that do not fit the plan's network.
    """
    model = build_model(plan.config.model, plan.config.num_classes)
    load_weights(model, weights)
    model.to(plan.device.torch_device, memory_format=torch.channels_last)
    return evaluate(model, plan.test_batches(), plan.dataset.classes)
