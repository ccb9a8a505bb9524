"""What each ingredient of the strong recipes brings: alone, added to recipe `seed` on the same budget, and all.

The budget is that of the mode: a few minutes for all in a rehearsal. Whole recipes can be rows, too. And what mode
quick's own recipe brings, beside others in the same time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnet.base.intervals import over_seeds
from attnet.engine.parameters import TrainConfig
from attnet.engine.recipes import LENGTHS, MODES, RECIPES, recipe_in
from attnet.engine.result import Result
from attnet.study.questions import Case, Study, difference, pick

BASELINE, TOGETHER = "baseline", "all together"


@dataclass(frozen=True)
class Ingredient:
    """One change of a recipe: what it is, the source, and the parameters; a function is of the total epochs.

    Where all are used together, it takes the place of those in `replaces`.
    """

    what: str
    source: str
    parameters: Mapping[str, object]
    replaces: tuple[str, ...] = ()

    def changes(self, total_epochs: int) -> dict[str, object]:
        """The parameters for so many epochs."""
        return {name: value(total_epochs) if callable(value) else value for name, value in self.parameters.items()}


INGREDIENTS = {
    "cosine": Ingredient(
        "the rate glides to 0 along half a cosine, after an epoch of warm-up",
        'Loshchilov and Hutter, "SGDR", 2017',
        {"schedule": "cosine", "warmup_epochs": lambda epochs: min(1, epochs / 2)},
    ),
    "one-cycle": Ingredient(
        "the rate rises for a fifth of the epochs, then falls to 0, both in a straight line",
        'Smith and Topin, "Super-Convergence", 2018',
        {"schedule": "onecycle", "warmup_epochs": lambda epochs: epochs / 5},
        replaces=("cosine", "warm-up"),
    ),
    "warm-up": Ingredient(
        "the rate rises from 0 within the first epoch",
        'Goyal et al., "Accurate, Large Minibatch SGD", 2017',
        {"warmup_epochs": lambda epochs: min(1, epochs / 2)},
    ),
    "label smoothing": Ingredient(
        "a tenth of each label is spread over all classes",
        'Szegedy et al., "Rethinking the Inception Architecture", 2016',
        {"label_smoothing": 0.1},
    ),
    "no bias decay": Ingredient(
        "no weight decay on biases and norms",
        'He et al., "Bag of Tricks for Image Classification", 2019',
        {"no_bias_decay": True},
    ),
    "weight decay 5e-4": Ingredient(
        "five times the weight decay",
        'Zagoruyko and Komodakis, "Wide Residual Networks", 2016',
        {"weight_decay": 5e-4},
    ),
    "mixup": Ingredient(
        "weighted sums of two images and their labels, weights drawn from Beta(0.2, 0.2)",
        'Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018',
        {"mixup": 0.2},
    ),
    "mixup off at the end": Ingredient(
        "mixup, but not in the last quarter of the epochs",
        'He et al., "Data Augmentation Revisited", 2019',
        {"mixup": 0.2, "mixup_off_epochs": lambda epochs: math.ceil(epochs / 4)},
        replaces=("mixup",),
    ),
    "cutout": Ingredient(
        "a square of 8 pixels of each training image set to zero",
        'DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017',
        {"cutout": 8},
    ),
    "EMA": Ingredient(
        "tested with an exponential moving average of the weights, decay 0.99 a step",
        'Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; exponential as in '
        'Tarvainen and Valpola, "Mean teachers are better role models", 2017',
        {"ema": 0.99},
    ),
    "alternating flip": Ingredient(
        "each image mirrored in every other epoch instead of at random",
        'Jordan, "94 % on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024',
        {"flip": "alternating"},
    ),
    "normalize": Ingredient(
        "each colour standardised by the training set's mean and deviation",
        'LeCun et al., "Efficient BackProp", 1998',
        {"normalize": True},
    ),
}


def _rows(base: TrainConfig, size: str, only: Sequence[str]) -> list[Case]:
    """The baseline, each ingredient alone, those of them together that do not exclude each other, whole recipes.

    Without names it is all ingredients and no whole recipe.
    """
    epochs = base.total_epochs
    rows = [Case(BASELINE, {}, what="the recipe that everything is added to")]
    for name, ingredient in INGREDIENTS.items():
        rows.append(Case(name, ingredient.changes(epochs), BASELINE, ingredient.what, ingredient.source))
    for recipe in RECIPES:
        what = "the whole recipe, its counts of epochs shrunk to the budget"
        rows.append(Case(f"recipe {recipe}", _shrunk(recipe, epochs), BASELINE, what))
    rows = pick(rows, only or list(INGREDIENTS))
    changes = {row.name: row.changes for row in rows if row.name in INGREDIENTS}
    if len(changes) > 1:
        replaced = {other for name in changes for other in INGREDIENTS[name].replaces}
        both = {key: value for name in changes if name not in replaced for key, value in changes[name].items()}
        what = "the rows above, without those that another one takes the place of"
        rows.insert(1 + len(changes), Case(TOGETHER, both, BASELINE, what))
    return rows


def _shrunk(recipe: str, epochs: int) -> dict[str, object]:
    """A recipe whose counts of epochs are in proportion to `epochs`."""
    share = epochs / LENGTHS.get(recipe, MODES["full"])["total_epochs"]
    values = TrainConfig.recipe_values(recipe)
    warm_up, plain = (values[name] * share for name in ("warmup_epochs", "mixup_off_epochs"))
    counted = {"warmup_epochs": round(warm_up, 3), "mixup_off_epochs": math.ceil(plain)}
    return {"recipe": recipe, "schedule": values["schedule"], **counted}


RECIPE = Study(
    "recipe",
    "What does each ingredient of the strong recipes bring?",
    "Where an interval crosses the line, this budget does not tell them apart. A short training says little about a "
    "long one, in which regularisers pay.",
    _rows,
    {size: {"test_flip": True, "schedule": "step"} for size in ("rehearsal", "full")},  # the document's, short or long
    on_given=True,
)


QUICK = "mode quick"
# Epochs at full size in the time of one of mode quick's on a processor, its tests included.
FULL_SIZE = 5 / 8


def _ways(base: TrainConfig, size: str, only: Sequence[str]) -> list[Case]:
    """How mode quick trains, beside recipe `fast94` on as many images of the same sides, and the document's recipe on
    images of full size, of which the same time has fewer.
    """
    epochs, quick = base.total_epochs, recipe_in(base.replace(mode="quick", recipe="seed"), "quick")
    fewer = max(1, round(epochs * FULL_SIZE))
    grown = {"image_sizes": quick["image_sizes"], "warmup_epochs": round(epochs / 5, 3)}
    plain = {"schedule": "onecycle", "total_epochs": fewer, "train_batch_size": 64}
    rows = [
        Case(QUICK, quick | grown, what="mode quick"),
        Case("recipe fast94", TrainConfig.recipe_values("fast94") | grown, QUICK, "recipe fast94, images that grow"),
        Case(
            "recipe seed",
            TrainConfig.recipe_values("seed") | plain,
            QUICK,
            f"the document's recipe with a one-cycle rate, {fewer} epochs at full size",
        ),
    ]
    return pick(rows, only)


TUNING = Study(
    "quick",
    "What does mode quick owe to how it trains?",
    "Top-1 after about the same time on a processor.",
    _ways,
    on_given=True,
)
FLIP = "flip at test time"


def flip_row(plain: Mapping[int, Result], seeds: Sequence[int]) -> dict[str, object]:
    """The baseline's own runs, tested on each image and its mirror image: nothing else differs."""
    flipped = {seed: result.top1_flip for seed, result in plain.items() if result.top1_flip is not None}
    return {
        "name": FLIP,
        "what": "the baseline's runs, with logits averaged over each test image and its mirror image",
        "source": 'Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012',
        "changed": {"test_flip": True},
        "top1": [flipped.get(seed) for seed in seeds],
        **over_seeds(list(flipped.values()), within=(0, 100)),
        "against": BASELINE,
        "difference": difference(flipped, {seed: result.last_top1 for seed, result in plain.items()}),
        "failures": [],
    }
