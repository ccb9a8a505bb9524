"""The learning rate: as the document's, cosine and one cycle, with a warm-up and large batches."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.schedule import learning_rate


def rates(config: TrainConfig, *done: float) -> list[float]:
    """What a trainer of these parameters takes after so many epochs."""
    return [Trainer.rate(SimpleNamespace(config=config), epochs) for epochs in done]


def complete(recipe: str = "seed", **changes: object) -> TrainConfig:
    return TrainConfig(**{**TrainConfig.recipe_values(recipe), "train_batch_size": 16, **changes})


def test_cosine_glides_from_lr_to_zero():
    half = 0.5**0.5
    seen = rates(complete(lr=0.2, total_epochs=4, schedule="cosine"), 0, 1, 2, 3, 4)
    assert seen == pytest.approx([0.2, 0.1 * (1 + half), 0.1, 0.1 * (1 - half), 0])


def test_one_cycle_is_two_straight_lines():
    seen = rates(complete(lr=0.2, warmup_epochs=2, total_epochs=6, schedule="onecycle"), 0, 1, 2, 3, 4, 5, 6)
    assert seen == pytest.approx([0, 0.1, 0.2, 0.15, 0.1, 0.05, 0])


def test_cosine_begins_after_the_warm_up():
    given = {"lr": 0.2, "images": 8, "lr_batch": 4, "total_epochs": 5, "warmup_epochs": 1}
    seen = [learning_rate("cosine", done, **given) for done in (0, 0.5, 1, 3, 5)]
    assert seen == pytest.approx([0.2, 0.3, 0.4, 0.2, 0])  # twice lr_batch: from lr to twice lr


def test_learning_rate_of_the_document():
    seen = rates(complete(total_epochs=300), *range(300))
    assert [seen.count(rate) for rate in sorted(set(seen), reverse=True)] == [90, 90, 90, 30]
    assert sorted(set(seen), reverse=True) == pytest.approx([0.1, 0.01, 0.001, 0.0001])
    short = rates(complete(total_epochs=10), *range(10))
    assert [round(math.log10(0.1 / rate)) for rate in short] == [0] * 3 + [1] * 3 + [2] * 3 + [3]


def test_large_batch_rises_to_its_rate_and_then_falls_as_the_documents():
    """8 x 512 images a step at 0.1 for 256: from 0.1 to 1.6 in five epochs, without a jump; then ÷ 10 as ever."""
    config = complete("large_batch", total_epochs=300, train_batch_size=512, device_num=8)
    seen = rates(config, 0, 2.5, 4.999, 5, 89.9, 90, 299)
    assert seen == pytest.approx([0.1, 0.85, 1.6, 1.6, 1.6, 0.16, 0.0016], rel=1e-3)
    assert rates(config.replace(device_num=1, accumulate=8), 10) == pytest.approx([1.6])
