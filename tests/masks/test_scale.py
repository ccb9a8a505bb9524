"""Scales of pictures of masks: what the colours span, and what stays beside."""

import math

import pytest
import torch

import attnet
from attnet.masks.scale import LEAST, neutral, robust_scale


def test_colours_diverge_from_the_centre_and_one_stray_value_does_not_stretch_them():
    values = torch.cat([torch.linspace(0.4, 0.5, 990), torch.full((10,), 0.99)])
    scale = robust_scale(values, 0.5)
    assert scale.high - 0.5 == pytest.approx(0.5 - scale.low)
    assert 0.09 < 0.5 - scale.low < 0.11
    assert (scale.smallest, scale.largest) == (pytest.approx(0.4), pytest.approx(0.99))


def test_masks_that_hardly_vary_are_not_stretched_to_full_contrast():
    scale = robust_scale(torch.linspace(0.499, 0.501, 100), 0.5)
    assert scale.high - 0.5 == pytest.approx(LEAST)


def test_features_have_their_own_range_and_zero_in_the_middle_of_both_signs():
    positive = robust_scale(torch.linspace(1, 3, 1001))
    assert positive.centre is None
    assert (positive.low, positive.high) == (pytest.approx(1.02, abs=1e-3), pytest.approx(2.98, abs=1e-3))
    both = robust_scale(torch.linspace(-1, 3, 1001))
    assert both.centre == 0.0
    assert both.low == -both.high


@pytest.mark.parametrize("values", [[2.0, 2.0], [math.nan, math.inf], [], [0.0], [-1.0, -1.0], [0.5]])
@pytest.mark.parametrize("centre", [None, 0.0, 0.5])
def test_no_values_leave_without_a_scale(values, centre):
    scale = robust_scale(torch.tensor(values), centre)
    assert scale.low < scale.high


@pytest.mark.parametrize(
    ("attention", "part", "reduction", "value"),
    [
        ("mixed", "mask", "mean", 0.5),
        ("mixed", "mask", "max", 0.5),
        ("mixed", "mask", "channel:3", 0.5),
        ("spatial", "mask", "mean", 0.5),
        ("constant", "mask", "mean", 0.5),
        ("channel", "mask", "mean", 0.0),
        ("mixed", "mask", "std", None),
        ("mixed", "mask", "l2", None),
        ("mixed", "mask", "pca", None),
        ("mixed", "trunk", "mean", None),
    ],
)
def test_where_a_mask_favours_nothing(attention, part, reduction, value):
    network = attnet.build_model("attention56_tiny", attention=attention)
    assert neutral(network.attention_modules()["stage1.0"], part, reduction) == value
