"""Measuring a network on a test set: loss, Top-1, per-class accuracy, confusion matrix, the mistakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import AttnetError, WeightsError
from attnet.base.progress import tracked
from attnet.data.batches import TestBatches
from attnet.engine.plan import Plan
from attnet.engine.precision import autocast, input_type
from attnet.engine.trouble import testing_memory
from attnet.model.folding import folded
from attnet.model.network import evaluating, memory_format
from attnet.model.variants import build_model, study_options
from attnet.model.weights.contents import first_not_finite

if TYPE_CHECKING:
    from attnet.model.weights.opened import Weights


@dataclass(frozen=True)
class Evaluation:
    """Outputs of a network on a split, in the split's order, on the CPU.

    `logits` float32 [N, K], `labels` int64 [N]; everything else follows from them. `mirrored`, where it was asked
    for, are the logits of the mirror images.
    """

    logits: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mirrored: Tensor | None = None

    @property
    def not_finite(self) -> int:
        """Images of whose logits one is no finite number: what a network with such weights says means nothing."""
        return int((~self.logits.isfinite().all(dim=1)).sum())

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
    def top1_flip(self) -> float:
        """Top-1 of the logits averaged over image and mirror image (test-time averaging), per cent."""
        if self.mirrored is None:
            raise AttnetError("top1_flip: the mirror images were not tested; evaluate with mirror=True (test_flip)")
        return Evaluation((self.logits + self.mirrored) / 2, self.labels, self.classes).top1

    @property
    def confusion(self) -> Tensor:
        """How many images of class i were taken for class j: int64 [K, K] at [i, j]."""
        k = self.logits.shape[1]
        return (self.labels * k + self.predictions).bincount(minlength=k * k).view(k, k)

    @property
    def per_class(self) -> dict[str, float | None]:
        """Top-1 of each class, per cent; None for a class without images."""
        table = self.confusion[: len(self.classes), :].double()
        rates = (100 * table.diagonal() / table.sum(dim=1)).tolist()
        return {name: None if rate != rate else rate for name, rate in zip(self.classes, rates, strict=True)}

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
    mirror: bool = False,
    shown: bool = False,
    before: Callable[[int], None] = lambda _done: None,
) -> Evaluation:
    """Run `model` in evaluation mode over `batches`; the mode of its every part is put back afterwards.

    `mirror`: over the mirror images as well; `shown`: with a bar, or lines where it takes long; `before` each batch is
    called with the number of those that are done. Results stay on the device until the end: one transfer for the whole
    set.
    """
    logits, mirrored, layout = [], [], memory_format(model)
    with evaluating(model), autocast(), testing_memory(batches.batch_size):
        total = -(-len(batches.labels) // batches.batch_size)
        for batch in tracked(batches, total, "batches tested") if shown else batches:
            before(len(logits))
            images = batch.images.to(input_dtype, memory_format=layout)
            logits.append(model(images))
            if mirror:
                mirrored.append(model(images.flip(3)))

    def together(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts).float().cpu() if parts else torch.empty(0, len(classes))

    return Evaluation(together(logits), batches.labels.cpu(), classes, together(mirrored) if mirror else None)


def evaluate_weights(plan: Plan, weights: str | Path | Weights | Mapping[str, Tensor] | None = None) -> Evaluation:
    """Evaluate weights on the plan's test images, at its opt level.

    Args:
        plan: an evaluation's, or a training's whose network the weights are.
        weights: ours or a reference checkpoint, file or state dict; None: the plan's own. An .onnx file of
            `attnet export` is run by onnxruntime on the CPU, in float32.

    Raises:
        WeightsError: weights that do not fit the plan's network, or whose logits are no finite numbers.
    """
    from attnet.model.weights.loading import load_weights
    from attnet.model.weights.opened import Weights

    config, weights = plan.config, plan.weights if weights is None else weights
    opened = Weights.open(weights) if isinstance(weights, str | Path) else weights
    classes, mirror = plan.dataset.classes, config.test_flip
    if isinstance(opened, Weights) and opened.is_graph:
        from attnet.model.weights.graphs import OnnxNetwork

        plain = dataclasses.replace(plan, colour=None)  # the graph standardises them itself
        found = evaluate(OnnxNetwork(opened.path), plain.test_batches(), classes, mirror=mirror, shown=True)
        return check_finite(found, {}, opened.path)
    model = build_model(config.model, config.num_classes, **study_options(config.to_dict()))
    load_weights(model, opened)
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    model.to(plan.device.torch_device, memory_format=layout)
    dtype = input_type(config.amp, plan.device)
    found = evaluate(
        folded(model, dtype),
        plan.test_batches(),
        classes,
        autocast=lambda: autocast(config.amp, plan.device),
        input_dtype=dtype,
        mirror=mirror,
        shown=True,
    )
    return check_finite(found, model.state_dict(), opened.path if isinstance(opened, Weights) else "state dict")


def check_finite(found: Evaluation, state: Mapping[str, Tensor], weights: str | Path) -> Evaluation:
    """What was found with the weights `state`; WeightsError naming `weights` where logits are no finite numbers."""
    if found.not_finite:
        raise WeightsError(
            f"weights {weights}: the logits of {found.not_finite:,} of {len(found.labels):,} images are no finite "
            f"numbers ({where_not_finite(state)}); take an earlier checkpoint"
        )
    return found


def where_not_finite(state: Mapping[str, Tensor]) -> str:
    """The first entry of a state dict, in forward order, that holds a value which is not finite, in words.

    A graph has no state dict: {}.
    """
    if not state:
        return "a graph: its weights were not looked into"
    first = first_not_finite(state)
    return f"first of all {first} holds some" if first else "all weights are finite: values overflow on the way"
