"""Figures of what changed: the networks' own masks, one scale for before and after, one for all differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import check_words
from test_plots_masks import NAMES, colours, draw_pixels, limits, make_model, maps, pictures, said, values
from torch import nn

from attnet import plots
from attnet.masks.reduce import attention_maps
from attnet.plots.sheet import BOTH_SIGNS


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    before, after = make_model(), make_model()
    for module in after.attention_modules().values():
        module.mask.head.conv2.weight.data += 0.2 * torch.randn_like(module.mask.head.conv2.weight)
    return before, after


def test_masks_before_after_and_their_difference(pair):
    n = 2
    images = draw_pixels(n)
    figure = plots.plot_masks_before_after(*pair, images, classes=NAMES, labels=[0] * n)
    expected = [attention_maps(model, images, "mask", "std", full_size=False) for model in pair]
    assert len(pictures(figure)) == n and len(maps(figure)) == 9 * n
    for row, name in enumerate(expected[0]):
        tiles = maps(figure)[6 * row :][:6]
        before, after, change = values(tiles)[:3]
        np.testing.assert_allclose(before, expected[0][name][0].numpy(), rtol=1e-6)
        np.testing.assert_allclose(after, expected[1][name][0].numpy(), rtol=1e-6)
        np.testing.assert_allclose(change, after - before, atol=1e-6)
        assert colours(tiles[2::3]) == {BOTH_SIGNS}
        [_] = limits([ax for place, ax in enumerate(tiles) if place % 3 < 2])  # before and after: one scale
        [(low, high)] = limits(tiles[2::3])
        assert low == -high
        assert f"{name}, " in said(figure) and f"change ±{high:.2g}" in said(figure)
    assert "stage1.0" in said(figure) and "after − before" in said(figure)
    check_words(figure)


def test_figures_of_the_change(pair):
    figure = plots.plot_mask_changes(*pair, draw_pixels(3))
    check_words(figure)
    assert [len(ax.patches) for ax in figure.axes] == [3, 3]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert all(0 < width < 0.999 for width in widths)


def test_without_masks_the_figures_say_so():
    bare = make_model(attention="none")
    for draw in (plots.plot_masks_before_after, plots.plot_mask_changes):
        assert "has no masks" in said(draw(bare, bare, draw_pixels(1)))
