"""How long it will take: asked of the device, told in one line, and nothing of the run is any different for it."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import attnet
from attnet.engine import estimate as estimates
from attnet.engine.estimate import estimate
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan

TINY = {
    **{"device_type": "CPU", "dataset": "shapes", "model": "attention56_tiny", "progress": "none"},
    **{"train_images": 64, "test_images": 32, "train_batch_size": 16, "total_epochs": 2},
}


@pytest.fixture
def always(monkeypatch) -> None:
    """Every training is long enough to be timed."""
    monkeypatch.setattr(estimates, "WORTH", dict.fromkeys(estimates.WORTH, 0))


@pytest.fixture
def hundredth(monkeypatch, always) -> None:
    """A device that trains on a hundred images a second."""
    monkeypatch.setattr(estimates, "_image_seconds", lambda plan: 0.01)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(estimates, "usable_cores", lambda: 1)


def planned(**changes: object) -> Plan:
    return make_plan(TrainConfig(**TINY | changes))


def test_a_timed_training_ends_with_the_same_bits(tmp_path, always):
    def end(folder: Path, config: TrainConfig) -> list[torch.Tensor]:
        attnet.fit(config.replace(output_dir=folder))
        return list(torch.load(folder / "last.pt", weights_only=True)["model"].values())

    config = TrainConfig(**TINY, mixup=0.2, cutout=8, ema=0.5)
    timed = end(tmp_path / "timed", config)
    assert "\ntime: about " in (tmp_path / "timed" / "log.txt").read_text()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "WORTH", dict.fromkeys(estimates.WORTH, float("inf")))
        untimed = end(tmp_path / "untimed", config)
    assert "\ntime: " not in (tmp_path / "untimed" / "log.txt").read_text()
    assert all(map(torch.equal, timed, untimed))


def test_random_numbers_go_on_as_if_nothing_had_happened(always):
    plan = planned()

    def drawn() -> list:
        return [random.random(), np.random.rand(), torch.rand(()).item()]

    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    expected = drawn()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    found = estimate(plan)
    assert drawn() == expected
    assert 0 < found.epoch < 600 and found.epochs == 2


def test_what_takes_a_minute_is_not_kept_waiting(monkeypatch):
    monkeypatch.setattr(estimates, "_image_seconds", lambda plan: pytest.fail("timed"))
    assert estimate(make_plan(TrainConfig(mode="rehearsal", dataset="shapes", device_type="CPU"))) is None
    assert estimate(make_plan(TrainConfig(**TINY, is_train=False, pretrained="attention56_shapes"))) is None


def test_it_is_counted_from_images_tests_and_what_is_left(hundredth):
    test = 32 * 0.01 * estimates.TESTING
    assert estimate(planned()).seconds == pytest.approx(2 * (0.64 + test))
    assert estimate(planned(test_flip=True)).epoch == pytest.approx(0.64 + test), "mirror images once, at the end"
    assert estimate(planned(image_sizes="16,32")).epoch == pytest.approx(0.64 * (0.25 + 1) / 2 + test)
    assert estimate(planned(train_batch_size=40)).epoch == pytest.approx(0.40 + test)  # the last 24 are left out
    later = dataclasses.replace(planned(total_epochs=5), position=(2, 1))  # of 4 steps
    assert estimate(later).epochs == 2.75


def test_of_several_processes_on_these_cores_it_is_said_what_was_timed(hundredth):
    plan = planned(device_num=2)
    found = estimate(plan)
    assert found.epoch == pytest.approx(0.64 + 0.32 * estimates.TESTING)  # half the images each, at half the speed
    assert "by one card alone: what cards wait for each other comes on top" in found.describe(plan.config)


def test_a_long_one_names_what_is_quicker(hundredth):
    plan = planned(mode="full", model="attention92", total_epochs=100_000)
    line = estimate(plan).describe(plan.config)
    assert line.startswith("time: about 20 h 44 min here, 100,000 epochs of 0.7 s; ")
    assert line.endswith("; quicker: mode=quick, fewer total_epochs or a smaller network (model=attention56_tiny)")
    short = planned(mode="full", model="attention92")
    assert "quicker" not in estimate(short).describe(short.config)
    quick = planned(mode="quick", total_epochs=100_000)
    assert estimate(quick).describe(quick.config).endswith("; quicker: fewer total_epochs")


def test_what_cannot_be_timed_is_left_to_the_training(always, monkeypatch):
    def fails(*_: object) -> float:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(estimates, "_step_seconds", fails)
    plan = planned()
    assert estimate(plan) is None
    assert "time:" not in plan.describe()


def test_the_plan_of_a_notebook_says_it(hundredth):
    assert "time: about 1.5 s here, 2 epochs of 0.7 s" in attnet.make_plan(TrainConfig(**TINY)).describe().splitlines()
