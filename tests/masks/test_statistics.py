"""Statistics of masks and responses: against what the features themselves say, whatever the batch."""

import pytest
import torch
from networks import narrow, tiny
from torch import nn

import attnet
from attnet.masks import statistics as responses
from attnet.masks.capture import capture
from attnet.masks.statistics import mask_statistics


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


# -- new networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("combine", "factor"), [("residual", lambda m: 1 + m), ("naive", lambda m: m)])
def test_with_units_that_add_nothing_all_is_carried_by_the_identity_path(combine, factor):
    model = narrow((1, 0), combine=combine).double()
    for module in model.attention_modules().values():
        for branch in (module.pre, module.trunk, module.post):
            for unit in branch:
                nn.init.zeros_(unit.conv3.weight)
    images = torch.rand(8, 3, 32, 32, dtype=torch.double)
    entries, masks = [], []
    for stage in model.stages:
        stage.entry.register_forward_hook(lambda _m, _i, out: entries.append(out))
        stage.attention[0].mask.register_forward_hook(lambda _m, _i, out: masks.append(out))
    found = responses.signal(model, images)
    assert entries == [], "the hooks of the caller's model stay silent"
    model(images)  # in training mode, so with the same statistics
    for (name, signal), entry, mask in zip(found.items(), entries, masks, strict=True):
        assert signal.mean == pytest.approx((entry * factor(mask)).abs().mean().item(), rel=1e-9), name
        assert signal.kept == pytest.approx(1, rel=1e-9)


def test_repeated_naive_masks_cut_the_identity_path_and_residual_ones_do_not():
    images = torch.rand(8, 3, 16, 16)
    before = torch.random.get_rng_state()
    found = responses.signals("attention236_cifar", images, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(found) == list(responses.COMBINATIONS)
    residual, naive, bare = (list(signal.values()) for signal in found.values())
    # From the first to the last of a stage's six modules: masks near 1/2 halve the path each time, 1 + M lets it grow.
    for first, last in ((0, 5), (6, 11), (12, 17)):
        assert naive[last].kept < 0.06 * naive[first].kept
        assert residual[last].kept > 0.7 * residual[first].kept
        assert naive[last].kept < bare[last].kept < residual[last].kept
        assert residual[last].mean > 5 * residual[first].mean
        assert naive[last].mean < 1.2 * naive[first].mean


def test_a_seed_is_a_set_of_weights():
    images = torch.rand(4, 3, 16, 16)
    first, again, other = (responses.signals("attention56_tiny", images, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_signal_takes_bytes_and_leaves_running_statistics_alone():
    model = tiny().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    assert responses.signal(model, images) == responses.signal(model, images / 255)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
