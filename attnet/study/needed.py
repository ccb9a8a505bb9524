"""Are masks needed? A trained network whose masks something simpler replaces, trained on for a few epochs.

Interventions on the trained network alone (`attnet.masks`) cannot tell: what goes on without its masks has had no
chance to get used to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attnet.engine.parameters import TrainConfig
from attnet.engine.result import Result
from attnet.model.anatomy import totals
from attnet.model.variants import study_options
from attnet.study.questions import Case, Study, pick

MASKS = "masks"
# The rate rises to a tenth of the one that the weights were trained with, and falls to 0.
BUDGET = {"is_pretrain": True, "recipe": "fast94", "lr": 0.01, "warmup_epochs": 1.0, "model": "attention56_cifar"}
PRESETS = {
    "rehearsal": BUDGET
    | {"pretrained": "attention56_shapes", "dataset": "shapes", "train_images": 320, "test_images": 300}
    | {"total_epochs": 2, "train_batch_size": 16},
    "full": BUDGET | {"pretrained": "attention56_cifar", "total_epochs": 6, "train_batch_size": 128},
}


def _cases(base: TrainConfig, size: str, only: Sequence[str]) -> list[Case]:
    rows = [
        Case(MASKS, {"attention": "mixed"}, what="the network as it is, trained on alike"),
        Case("gain", {"attention": "gain"}, MASKS, "each mask's mean over positions: a number an image and channel"),
        Case("constant", {"attention": "constant"}, MASKS, "a learned number a channel, at first the mask's mean"),
        Case("none", {"attention": "none"}, MASKS, "the trunk alone"),
    ]
    return pick(rows, only)


def _costs(results: Mapping[int, Result]) -> dict[str, object]:
    """FLOPs of a forward pass an image, and Top-1 after the first epoch of training on."""
    parameters = next(iter(results.values())).parameters
    return {
        "flops": totals(parameters["model"], parameters["num_classes"], **study_options(parameters)).flops,
        "first_epoch": {str(seed): result.history[0]["top1"] for seed, result in results.items()},
    }


NEEDED = Study(
    "masks",
    "Are masks needed, once a network is trained?",
    "Top-1 beside the arithmetic of an image. Where a constant does as well, no mask branch need be computed.",
    _cases,
    PRESETS,
    seeds=(0,),
    measure=_costs,
)
