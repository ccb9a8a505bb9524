"""Masks before and after: the figures are those of plain numpy, and only like is compared with like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import contrasting, draw_pixels

import attnet
from attnet.base.errors import ConfigError
from attnet.masks import changes
from attnet.masks.changes import mask_changes


def test_figures_are_those_of_numpy(monkeypatch):
    before, images = contrasting(), draw_pixels(5)
    after = contrasting()
    for module in after.attention_modules().values():
        module.mask.head.conv2.weight.data += 0.1 * torch.randn_like(module.mask.head.conv2.weight)
    monkeypatch.setattr(changes, "_BATCH", 2)
    found = mask_changes(before, after, images)
    masks = [attnet.capture_masks(model, images) for model in (before, after)]
    assert list(found) == list(masks[0])
    for name, change in found.items():
        x, y = (each[name].double().numpy().ravel() for each in masks)
        assert change.correlation == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-6)
        assert change.change == pytest.approx(np.abs(y - x).mean(), rel=1e-6) and change.change > 1e-4


def test_the_same_weights_and_other_classes():
    after = attnet.build_model("attention56_tiny", 11)
    before = contrasting()
    attnet.load_weights(after, before.state_dict(), new_head=True)
    for change in mask_changes(before, after, draw_pixels(2)).values():
        assert (change.correlation, change.change) == (pytest.approx(1), 0)


def test_no_masks_and_other_networks():
    bare = contrasting(attention="none")
    assert mask_changes(bare, bare, draw_pixels(1)) == {}
    with pytest.raises(ConfigError, match=r"attention56_tiny with attention=none and attention56_tiny have other"):
        mask_changes(bare, contrasting(), draw_pixels(1))
