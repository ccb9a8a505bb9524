"""Scores of maps with known objects: by hand, against brute force, and what must not change them."""

import math

import pytest
import torch
from torch import Tensor

from attnet.base.errors import ConfigError
from attnet.base.intervals import Interval, confidence_interval
from attnet.masks import localise as localisation
from attnet.masks.controls import centre_prior, random_maps
from attnet.masks.localise import Localisation, localise

SCORES = ("pointing", "auroc", "energy", "iou", "area")
OBJECT = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)


def make_tied(n: int = 23, side: int = 6, values: int = 6) -> tuple[Tensor, Tensor]:
    """Maps of few whole values (so many ties), and objects of every size from one pixel to all but one."""
    generator = torch.Generator().manual_seed(1)
    maps = torch.randint(-2, values - 2, (n, side, side), generator=generator).double()
    objects = torch.rand(n, side, side, generator=generator) < torch.linspace(0.05, 0.95, n)[:, None, None]
    objects[:, 0, 0], objects[:, -1, -1] = True, False
    return maps, objects


def assert_same(a: Localisation, b: Localisation) -> None:
    for name in SCORES:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-6, atol=1e-7, msg=name)
    assert a.threshold == b.threshold


def score(rows: list[list[float]], thresholds: int = 5) -> dict[str, float]:
    """Scores of one map of OBJECT's size."""
    result = localise(torch.tensor([rows], dtype=torch.float32), OBJECT[None], thresholds)
    return {name: getattr(result, name).item() for name in SCORES} | {"threshold": result.threshold}


def test_a_perfect_map_scores_one_everywhere():
    maps = torch.stack([OBJECT, ~OBJECT]).float()
    result = localise(maps, torch.stack([OBJECT, ~OBJECT]))
    for name in SCORES[:4]:
        assert getattr(result, name).tolist() == [1, 1], name
    assert result.area.tolist() == [3 / 8, 5 / 8]
    assert result.threshold == pytest.approx(0.01)  # the lowest of those that do it


def test_an_inverted_map_finds_nothing():
    result = score((~OBJECT).float().tolist())
    assert result["pointing"] == result["auroc"] == result["energy"] == 0
    assert result["iou"] == 3 / 8 and result["threshold"] == 0  # all the image is the best that is left


@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e30])
def test_a_constant_map_scores_the_area(value):
    result = score([[value] * 4] * 2)
    assert result["auroc"] == 0.5
    assert result["pointing"] == result["energy"] == result["iou"] == result["area"] == 3 / 8


def test_half_right_by_hand():
    """The object holds 4 3 2, the background 2 0 4 0 0."""
    result = score([[4, 3, 2, 0], [4, 2, 0, 0]])
    assert result["pointing"] == 0.5  # two maxima, one of them inside
    assert result["auroc"] == pytest.approx((4.5 + 4 + 3.5) / 15)  # of 4, of 3 and of 2 against the five
    assert result["energy"] == pytest.approx(9 / 15)
    # IoU at 0, 1/4 ... 1: 3/8, 3/5, 3/5, 2/4, 1/4
    assert (result["iou"], result["threshold"]) == (pytest.approx(3 / 5), 0.25)


def test_half_right_by_hand_with_negative_values():
    """The object holds -1 1 -3, the background 0 -3 -3 -2 -3: scaled to [0, 1] 2 4 0 and 3 0 0 1 0 quarters."""
    result = score([[-1, 1, 0, -3], [-3, -3, -2, -3]])
    assert result["pointing"] == 1
    assert result["auroc"] == pytest.approx((4 + 5 + 3 / 2) / 15)
    assert result["energy"] == pytest.approx(6 / 10)
    # IoU: 3/8, 2/5, 2/4, 1/4, 1/3
    assert (result["iou"], result["threshold"]) == (pytest.approx(1 / 2), 0.5)


def test_one_threshold_serves_all_images():
    """Alone, the first is best at 1/4 with 3/5; the second has 1 at 1, 1/7 at 1/4: 1 is best for both together."""
    maps = torch.tensor([[[4, 3, 2, 0], [4, 2, 0, 0]], [[4, 3, 3, 3], [3, 3, 3, 0]]], dtype=torch.float32)
    dot = torch.zeros_like(OBJECT)
    dot[0, 0] = True
    result = localise(maps, torch.stack([OBJECT, dot]), thresholds=5)
    assert result.threshold == 1
    assert result.iou.tolist() == [0.25, 1]


def test_auroc_against_every_pair():
    maps, objects = make_tied()
    result = localise(maps, objects)
    for values, inside, auroc in zip(maps, objects, result.auroc.tolist(), strict=True):
        ours, others = values[inside].tolist(), values[~inside].tolist()
        wins = sum((a > b) + (a == b) / 2 for a in ours for b in others)
        assert auroc == pytest.approx(wins / (len(ours) * len(others)), rel=1e-6)


def best_iou(whole: Tensor, objects: Tensor, thresholds: int) -> tuple[float, list[float]]:
    """The threshold and its IoUs by trying each, in whole numbers: maps from 0 to 100, nothing is rounded."""
    best: tuple[float, int, list[float]] = (-1.0, 0, [])
    for k in range(thresholds):
        chosen = whole * (thresholds - 1) >= k * 100
        ious = ((chosen & objects).sum(dim=(1, 2)) / (chosen | objects).sum(dim=(1, 2)).double()).tolist()
        best = max(best, (math.fsum(ious), -k, ious))  # the lowest of equals
    return -best[1] / (thresholds - 1), best[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("thresholds", [2, 11, 21, 101])
def test_iou_against_every_threshold(thresholds, dtype):
    """Shrunk by 0.007 and rounded, whole numbers lie a hair above or below the thresholds that they equal."""
    noise, objects = make_tied(values=73)
    whole = (noise + 2).long() + 28 * objects
    whole[:, 0, 0], whole[:, -1, -1] = 100, 0
    maps = (whole * 0.007 - 0.3).to(dtype)
    result = localise(maps, objects, thresholds)
    threshold, ious = best_iou(whole, objects, thresholds)
    assert result.threshold == pytest.approx(threshold)
    assert result.iou.tolist() == pytest.approx(ious, rel=1e-6)
    found = set()
    for i in range(len(maps)):  # alone, each has a threshold of its own
        one = localise(maps[i : i + 1], objects[i : i + 1], thresholds)
        threshold, ious = best_iou(whole[i : i + 1], objects[i : i + 1], thresholds)
        assert one.threshold == pytest.approx(threshold)
        assert one.iou.tolist() == pytest.approx(ious, rel=1e-6)
        found.add(round(threshold, 6))
    assert len(found) >= min(thresholds, 5)


@pytest.mark.parametrize(("a", "b"), [(3.7, -20.0), (1e-9, 0.0), (1e200, -1e200), (0.125, 5.0)])
def test_scale_and_shift_leave_the_scores(a, b):
    maps, objects = make_tied()
    maps[::2] = random_maps(len(maps[::2]), maps.shape[1:]).double()  # without ties as well
    assert_same(localise(a * maps + b, objects), localise(maps, objects))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_float_type_will_do(dtype):
    maps, objects = make_tied()
    result = localise(maps.to(dtype).requires_grad_(), objects)
    assert_same(result, localise(maps, objects))
    assert all(getattr(result, name).dtype == torch.float32 for name in SCORES)
    assert not any(getattr(result, name).requires_grad for name in SCORES)


def test_float64_keeps_differences_that_float32_loses():
    maps = torch.zeros(1, 2, 4, dtype=torch.float64) + 1
    maps[0, OBJECT] += 1e-12
    result = localise(maps, OBJECT[None])
    assert result.auroc.item() == result.pointing.item() == result.energy.item() == 1


@pytest.mark.parametrize("chunk", [1, 36, 5 * 36 + 7, 22 * 36])
def test_chunks_do_not_change_the_results(monkeypatch, chunk):
    maps, objects = make_tied()
    whole, interval = localise(maps, objects), confidence_interval(maps.mean(dim=(1, 2)))
    monkeypatch.setattr(localisation, "CHUNK", chunk)
    assert_same(localise(maps, objects), whole)
    chunked = confidence_interval(maps.mean(dim=(1, 2)))
    assert (chunked.low, chunked.high) == pytest.approx((interval.low, interval.high), rel=1e-12)


def test_arguments_are_left_alone():
    maps, objects = make_tied()
    before = maps.clone(), objects.clone()
    localise(maps, objects)
    assert torch.equal(maps, before[0]) and torch.equal(objects, before[1])


def test_summary():
    maps, objects = make_tied()
    result = localise(maps, objects)
    summary = result.summary()
    assert list(summary) == ["pointing", "auroc", "iou", "energy"]
    for name, interval in summary.items():
        assert interval == confidence_interval(getattr(result, name))
        assert interval.mean == pytest.approx(getattr(result, name).mean().item())
    assert str(Interval(0.73149, 0.712, 0.75)) == "0.731 (0.712–0.750)"


# -- errors -------------------------------------------------------------------------------------------------------


def spoil(what: str) -> tuple[Tensor, Tensor]:
    maps, objects = make_tied()
    if what == "whole":
        maps = maps.long()
    elif what == "bytes":
        objects = objects.byte()
    elif what == "small":
        maps = maps[:, :3, :3]
    elif what == "channel":
        maps, objects = maps[:, None], objects[:, None]
    elif what == "none":
        maps, objects = maps[:0], objects[:0]
    elif what in ("empty", "full"):
        objects[4], objects[9] = what == "full", what == "full"
    else:
        maps[7, 2, 3] = float(what)
    return maps, objects


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("whole", r"maps of dtype torch.int64: a float dtype is needed; use maps.float\(\)"),
        ("bytes", r"objects of dtype torch.uint8: bool is needed"),
        ("small", r"maps of shape \[23, 3, 3\], objects of shape \[23, 6, 6\]: .* one size; .*upsample"),
        ("channel", r"maps of shape \[23, 1, 6, 6\].*both must be \[N, H, W\]"),
        ("none", r"maps of shape \[0, 6, 6\]: at least one image is needed"),
        ("empty", r"objects\[4\] has no object pixel \(2 of 23 images have none\): .*leave these images out"),
        ("full", r"objects\[4\] has no background pixel \(2 of 23 images have none\): .*leave these images out"),
        ("nan", r"maps\[7\] holds a value that is not finite.*leave the image out"),
        ("inf", r"maps\[7\] holds a value that is not finite.*leave the image out"),
        ("-inf", r"maps\[7\] holds a value that is not finite.*leave the image out"),
    ],
)
@pytest.mark.parametrize("chunk", [2**18, 3 * 36])
def test_unfit_maps_and_objects(monkeypatch, chunk, what, sentence):
    monkeypatch.setattr(localisation, "CHUNK", chunk)  # indices count from the first image, not the chunk's first
    with pytest.raises(ConfigError, match=sentence):
        localise(*spoil(what))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: localise(*make_tied(), thresholds=1), r"thresholds=1: at least 2 are needed"),
        (lambda: confidence_interval(torch.empty(0)), r"values of shape \[0\]: \[N\] with at least one value"),
        (lambda: confidence_interval(torch.ones(2, 2)), r"values of shape \[2, 2\]: \[N\]"),
        (lambda: confidence_interval(torch.tensor([0, math.nan])), r"values\[1\]=nan: every value must be finite"),
        (lambda: confidence_interval(torch.tensor([math.inf])), r"values\[0\]=inf: every value must be finite"),
        (lambda: confidence_interval(torch.ones(2), level=95), r"level=95: it must lie between 0 and 1"),
        (lambda: confidence_interval(torch.ones(2), resamples=0), r"resamples=0: it must be 1 or more"),
        (lambda: centre_prior(0, (4, 4)), r"count=0, size=\(4, 4\): at least one map"),
        (lambda: random_maps(2, (4, 0)), r"count=2, size=\(4, 0\): at least one map"),
    ],
)
def test_numbers_out_of_range(call, sentence):
    with pytest.raises(ConfigError, match=sentence):
        call()
