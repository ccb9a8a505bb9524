"""The table of networks and building one of them; the numbers are the design's and the paper's."""

import dataclasses

import pytest
import torch
from networks import tiny
from torch import nn

import attnet
from attnet.base.errors import ConfigError
from attnet.masks.capture import capture
from attnet.model.modules import ATTENTION_TYPES, COMBINE_TYPES
from attnet.model.network import evaluating, unwrap

TABLE = attnet.variants()
# name -> attention modules a stage, channels a stage, mask side a stage
STRUCTURE = {
    "attention92": ((1, 2, 3), (128, 256, 512), (32, 16, 8)),
    "attention92_pooled": ((1, 2, 3), (128, 256, 512), (16, 8, 4)),
    "attention92_224": ((1, 2, 3), (256, 512, 1024), (56, 28, 14)),
    "attention56_224": ((1, 1, 1), (256, 512, 1024), (56, 28, 14)),
    "attention92_448": ((1, 1, 2, 3), (128, 256, 512, 1024), (112, 56, 28, 14)),
    "attention56_cifar": ((1, 1, 1), (64, 128, 256), (32, 16, 8)),
    "attention92_cifar": ((2, 2, 2), (64, 128, 256), (32, 16, 8)),
    "attention236_cifar": ((6, 6, 6), (64, 128, 256), (32, 16, 8)),
    "attention452_cifar": ((6, 6, 6), (64, 128, 256), (32, 16, 8)),
    "attention56_tiny": ((1, 1, 1), (32, 64, 128), (32, 16, 8)),
}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("attention92", 12_170_730),
        ("attention92_pooled", 12_172_266),
        ("attention92_224", 50_437_834),
        ("attention56_224", 29_782_218),
        ("attention92_448", 50_782_410),
    ],
)
def test_parameters_of_the_reference_networks(name, parameters):
    assert TABLE[name].parameters == parameters


@pytest.mark.parametrize(
    ("name", "published"),
    [("attention92_cifar", 1.9e6), ("attention236_cifar", 5.1e6), ("attention452_cifar", 8.6e6)],
)
def test_parameters_of_the_papers_networks_are_within_a_tenth(name, published):
    assert TABLE[name].parameters == pytest.approx(published, rel=0.1)


def test_every_network_of_the_table_has_a_known_structure():
    assert TABLE.keys() == STRUCTURE.keys()
    assert all(name == variant.name for name, variant in TABLE.items())


@pytest.mark.parametrize("name", STRUCTURE)
def test_logits_and_masks_of_every_network(name, monkeypatch):
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda _self, x: x)  # keeps shapes, and takes most of the time
    modules, channels, sides = STRUCTURE[name]
    size = TABLE[name].input_size
    with torch.device("meta"):
        model = attnet.build_model(name, num_classes=7)
        images = torch.empty(2, 3, size, size)
    expected = {
        f"stage{stage + 1}.{index}": (2, channels[stage], sides[stage], sides[stage])
        for stage, count in enumerate(modules)
        for index in range(count)
    }
    taken = capture(model, images)
    masks = {mask: tuple(parts["mask"].shape) for mask, parts in taken.features.items()}
    assert taken.logits.shape == (2, 7)
    assert list(masks.items()) == list(expected.items())


@pytest.mark.parametrize("combine", COMBINE_TYPES)
@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_every_parameter_gets_a_gradient(attention, combine):
    """DistributedDataParallel without find_unused_parameters hangs on a parameter that takes no part."""
    model = tiny(attention=attention, combine=combine)
    model(torch.rand(4, 3, 16, 16)).logsumexp(1).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("attention92", ["stages.stage1.entry", "stages.stage2.entry", "stages.stage3.entry", "tail.0"]),
        ("attention92_cifar", ["stages.stage1.entry", "stages.stage2.entry", "stages.stage3.entry"]),
    ],
)
def test_shortcut_weights_exist_only_where_shapes_change(name, expected):
    names = [n.removesuffix(".shortcut.weight") for n in attnet.build_model(name).state_dict() if "shortcut" in n]
    assert names == expected


def test_options_reach_every_attention_module():
    model = tiny(p=2, t=3, r=2)
    for module in model.attention_modules().values():
        level = module.mask.levels
        coarsest = level.below or level
        assert (len(module.pre), len(module.trunk), len(module.post), len(coarsest.units)) == (2, 3, 2, 4)
    assert dataclasses.replace(model.variant, p=1, t=2, r=1) == TABLE["attention56_tiny"]
    bare = tiny(attention="none")
    assert not [name for name in bare.state_dict() if ".mask." in name]
    assert attnet.capture_masks(bare, torch.rand(1, 3, 32, 32)) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "attention93"}, r"model='attention93' is unknown: choose one of attention92, .*attention56_tiny"),
        ({"depth": 3}, "unknown model option 'depth': choose from attention, combine, sums, unit, p, t, r, modules"),
        ({"attention": "soft"}, "attention='soft': choose one of mixed, channel, spatial, gain, constant, none"),
        ({"combine": "sum"}, "combine='sum': choose one of residual, naive"),
        ({"p": 0}, "p=0: a whole number"),
        ({"t": 1.5}, r"t=1\.5: a whole number"),
        ({"r": True}, "r=True: a whole number"),
        ({"num_classes": 0}, "num_classes=0: a whole number"),
        ({"num_classes": -3}, "num_classes=-3: a whole number"),
        ({"num_classes": 2.5}, r"num_classes=2\.5: a whole number"),
    ],
)
def test_what_cannot_be_built_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        attnet.build_model(**{"name": "attention56_tiny"} | arguments)


@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_channels_last_gives_the_same_logits_and_gradients(attention):
    images = torch.rand(4, 3, 32, 32, dtype=torch.double)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = tiny(attention=attention).double().to(memory_format=layout)
        logits = model(images.to(memory_format=layout))
        logits.logsumexp(1).sum().backward()
        results.append([logits, *(p.grad for p in model.parameters())])
    for contiguous, channels_last in zip(*results, strict=True):
        torch.testing.assert_close(contiguous, channels_last, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("attention56_tiny", [(33, 29), (17, 15), (9, 8)]), ("attention92_pooled", [(16, 14), (8, 7), (4, 4)])],
)
def test_odd_sizes_run(name, expected):
    model = attnet.build_model(name)
    images = torch.rand(2, 3, 33, 29)
    logits = model(images)
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()
    masks = attnet.capture_masks(model, images)
    assert sorted({tuple(mask.shape[2:]) for mask in masks.values()}, reverse=True) == expected


def test_unwrap_reaches_the_network_through_every_wrapper():
    model = tiny()
    wrapped = nn.Module()
    wrapped.module = torch.compile(model, backend="eager")
    assert unwrap(wrapped) is model
    assert unwrap(model) is model


@pytest.mark.parametrize("fails", [False, True])
def test_evaluating_puts_every_parts_mode_back(fails):
    model = tiny()
    model.stem.eval()  # as fine-tuning with a frozen stem does
    before = {name: module.training for name, module in model.named_modules()}
    try:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert {name: module.training for name, module in model.named_modules()} == before
    assert torch.is_grad_enabled()
