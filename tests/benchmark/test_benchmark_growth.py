"""Curves of growth: the line, what is measured in which order, and numbers that fit together."""

import argparse
import json
import statistics

import numpy as np
import psutil
import pytest

from attnet.base.device import KINDS
from attnet.base.errors import ConfigError
from attnet.benchmark import growth
from attnet.benchmark.command import make_parser
from attnet.benchmark.loops import Setting
from attnet.model.variants import variants


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def make_options(*arguments: str, **changes: object) -> argparse.Namespace:
    """The flags' defaults, with the smallest of everything."""
    given = {
        **{"model": "attention56_tiny", "batch_size": 4, "rounds": 1, "amp": "O0", "device_type": "CPU"},
        **{"memory_format": "channels_last", "compile": "off", "data_path": "", "dataset": "shapes"},
        **{"train_images": 28, "test_images": 20, "workers": 0},
    }
    return argparse.Namespace(**vars(make_parser().parse_args(arguments)) | given | changes)


def check(curve: dict, points: int, rounds: int) -> None:
    """Medians and line follow from the values."""
    assert len(curve["x"]) == len(curve["y"]) == points
    assert all(len(values) == rounds and min(values) > 0 for values in curve["y"])
    assert curve["median"] == [statistics.median(values) for values in curve["y"]]
    if points > 2:
        slope, intercept = np.polyfit(curve["x"], curve["median"], 1)
        assert curve["fit"]["slope"] == pytest.approx(slope, rel=1e-6, abs=1e-12)
        assert curve["fit"]["intercept"] == pytest.approx(intercept, rel=1e-6, abs=1e-12)
    else:
        assert curve["fit"] is None


@pytest.mark.parametrize("seed", [0, 1])
def test_line_is_that_of_least_squares(seed):
    random = np.random.default_rng(seed)
    x = random.uniform(0, 50, 9)
    y = 3 - 0.7 * x + random.normal(0, 5, 9)
    found = growth.line(x.tolist(), y.tolist())
    slope, intercept = np.polyfit(x, y, 1)
    assert found["slope"] == pytest.approx(slope)
    assert found["intercept"] == pytest.approx(intercept)
    assert found["r2"] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert 0.2 < found["r2"] < 0.999


def test_line_through_points_of_a_line_and_of_a_flat_one():
    assert growth.line([1, 2, 4], [5, 7, 11]) == pytest.approx({"slope": 2, "intercept": 3, "r2": 1})
    assert growth.line([1, 2, 4], [5, 5, 5]) == {"slope": 0, "intercept": 5, "r2": 1}


def test_points_are_measured_in_turn(capsys):
    calls = []

    def once(point: str, number: int) -> str:
        calls.append((number, point))
        return f"{point}{number}"

    values = growth.in_turn("letter", 2, ["a", "b", "c"], once, str.upper)
    assert values == [["a0", "a1"], ["b0", "b1"], ["c0", "c1"]]
    assert calls == [(number, point) for number in (0, 1) for point in "abc"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 6
    assert said[3] == "benchmark: growth, letter a, round 2 of 2: A1 (4 of 6)"


@pytest.mark.slow
def test_images_memory_and_start_up():
    options = make_options(
        *("--growth_images", "13,8", "--growth_batches", "6", "--growth_models", "attention56_tiny"),
        *("--curves", "images,memory,start_up"),
    )
    result = growth.measure(options)
    assert not psutil.Process().children(recursive=True)
    assert set(result) == {"images", "images_training", "memory", "start_up"}
    for name, points in (("images", 2), ("images_training", 2), ("memory", 1), ("start_up", 1)):
        check(result[name], points, rounds=1)
    assert result["images"]["x"] == result["images_training"]["x"] == [8, 12], "whole steps, smallest first"
    whole, training = (np.array(result[name]["y"]) for name in ("images", "images_training"))
    assert (whole > training).all(), "testing takes its time"
    assert result["memory"]["x"] == [6]
    assert result["start_up"]["names"] == ["attention56_tiny"]
    assert result["start_up"]["x"] == [variants()["attention56_tiny"].parameters]
    assert json.loads(json.dumps(result)) == result


class Instant:
    """A process that is ready at once, and has a peak of a byte an image."""

    def __init__(self, setting: Setting, device_type: str, warm_up: int = 0, test_images: int = 0) -> None:
        self.setting = setting

    def __enter__(self) -> "Instant":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, what: str) -> dict:
        return {"answer": {"peak": self.setting.batch_size}[what]}


def test_memory_and_start_up_are_sorted_by_size(monkeypatch):
    monkeypatch.setattr(growth, "steps_worker", Instant)
    names = ["attention92", "attention56_tiny", "attention92_cifar", "attention92"]
    options = make_options("--growth_batches", "8,4,16", growth_models=names, rounds=3)
    curve = growth.start_up(options)["start_up"]
    check(curve, 3, rounds=3)
    assert curve["names"] == ["attention56_tiny", "attention92_cifar", "attention92"]
    assert curve["x"] == [variants()[name].parameters for name in curve["names"]] == sorted(curve["x"])
    curve = growth.memory(options)["memory"]
    assert curve["x"] == curve["median"] == [4, 8, 16]
    assert curve["fit"] == pytest.approx({"slope": 1, "intercept": 0, "r2": 1})


@pytest.mark.slow
def test_a_run_on_one_rank_gives_its_speed():
    result = growth.measure(make_options("--curves", "ranks", "--growth_ranks", "1"))
    check(result["ranks"], 1, rounds=1)
    assert result["ranks"]["x"] == [1] and result["ranks"]["steps"] == 7
    assert not psutil.Process().children(recursive=True)


def test_ranks_share_one_batch(monkeypatch):
    runs = []

    def run(**given: object) -> dict:
        runs.append((given["device_num"], given["train_batch_size"], given["train_images"]))
        return {"metrics": {"fps": 100.0 * given["device_num"] + len(runs)}}

    monkeypatch.setattr(growth, "short_run", run)
    curve = growth.ranks(make_options("--growth_ranks", "4,1,2", batch_size=8, rounds=2, train_images=100))["ranks"]
    assert runs == 2 * [(1, 8, 96), (2, 4, 96), (4, 2, 96)]
    check(curve, 3, rounds=2)
    assert (curve["x"], curve["y"][2], curve["global_batch_size"], curve["steps"]) == ([1, 2, 4], [403, 406], 8, 12)


def test_ranks_that_cannot_share_the_batch():
    with pytest.raises(ConfigError, match="batch_size=8: 3 ranks cannot share it"):
        growth.ranks(make_options("--growth_ranks", "1,3", batch_size=8))


@pytest.mark.parametrize(("cores", "batch", "expected"), [(1, 8, [1]), (6, 8, [1, 2, 4]), (8, 4, [1, 2, 4])])
def test_ranks_up_to_the_cores(monkeypatch, cores, batch, expected):
    monkeypatch.setattr(growth, "usable_cores", lambda: cores)
    assert growth.rank_counts(make_options(batch_size=batch)) == expected


@pytest.mark.parametrize(("kind", "expected"), [("CPU", growth.IMAGES_CPU), ("GPU", growth.IMAGES_ACCELERATOR)])
def test_default_sizes_follow_the_device(monkeypatch, kind, expected):
    monkeypatch.setattr(growth.devices, "choose", lambda _: KINDS[kind]())
    assert growth.image_counts(make_options()) == expected
    assert growth.image_counts(make_options("--growth_images", "9")) == [9]
