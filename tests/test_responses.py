"""Statistics of masks and responses: against what the features themselves say, whatever the batch."""

import pytest
import torch

import attnet
from attnet.masks import capture
from attnet.responses import mask_statistics


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", [{}, {"combine": "naive"}, {"attention": "channel"}], ids=str)
@pytest.mark.parametrize("batch_size", [3, 100])
def test_statistics_are_those_of_the_features(images, options, batch_size):
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny", **options)
    rows = mask_statistics(model, images, bins=20, batch_size=batch_size)
    features = capture(model, images, ("trunk", "mask", "masked")).features
    assert [row.module for row in rows] == list(features)
    for row in rows:
        trunk, mask, masked = (features[row.module][part].double() for part in ("trunk", "mask", "masked"))
        assert (row.low, row.high) == ((-1 if options.get("attention") == "channel" else 0), 1)
        assert row.counts.sum() == mask.numel() and len(row.counts) == 20
        assert torch.equal(row.counts, torch.histc(features[row.module]["mask"], 20, row.low, row.high).long())
        expected = {
            "mean": mask.mean(),
            "std": mask.std(correction=0),
            "over_space": mask.flatten(2).std(dim=2, correction=0).mean(),
            "over_channels": mask.mean(dim=(2, 3)).std(dim=1, correction=0).mean(),
            "trunk": trunk.abs().mean(),
            "masked": masked.abs().mean(),
            "naive": (mask * trunk).abs().mean(),
        }
        for name, value in expected.items():
            assert getattr(row, name) == pytest.approx(value.item(), rel=1e-4), name


def test_a_mask_of_one_half_does_not_point(images):
    model = attnet.build_model("attention56_tiny")
    with torch.no_grad():
        model.stages.stage2.attention[0].mask.head.conv2.weight.zero_()
    [row] = mask_statistics(model, images, ["stage2.0"])
    assert (row.mean, row.std, row.over_space, row.over_channels) == pytest.approx((0.5, 0, 0, 0), abs=1e-7)
    assert row.masked == pytest.approx(1.5 * row.trunk) and row.naive == pytest.approx(0.5 * row.trunk)


def test_without_masks_there_are_no_statistics(images):
    assert mask_statistics(attnet.build_model("attention56_tiny", attention="none"), images) == []
