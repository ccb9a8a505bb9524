"""Trained weights as a network with simpler masks: a gain, a learned constant, nothing."""

from __future__ import annotations

import pytest
import torch
from networks import contrasting
from networks import trained as randomised

import attnet
from attnet.base.errors import WeightsError
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan
from attnet.masks.replace import Replacing, intervene
from attnet.model.anatomy import totals
from attnet.model.network import evaluating
from attnet.model.simplify import can_simplify, channel_means, simplified


@pytest.fixture(scope="module")
def trained():
    return randomised(contrasting()).eval()


def as_simple(network, attention, images):
    made = attnet.build_model("attention56_tiny", attention=attention)
    made.load_state_dict(simplified(network.state_dict(), attention, channel_means(network, [images])))
    return made


@pytest.mark.parametrize(("attention", "intervention"), [("gain", "mean"), ("constant", "constant"), ("none", "zero")])
def test_the_simpler_network_is_the_trained_one_with_that_intervention(trained, attention, intervention):
    """Module by module by hooks, or as a network of its own: the same logits."""
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plan = dict.fromkeys(trained.attention_modules(), intervention)
    of_a_set = intervention == "constant"
    wanted = Replacing(trained, images).logits(plan) if of_a_set else intervene(trained, images, plan)
    made = as_simple(trained, attention, images)
    with evaluating(made):
        assert (made(images) - wanted).abs().max() < 1e-3
    with evaluating(trained):
        assert (trained(images) - wanted).abs().max() > 5e-3


def test_means_are_those_of_all_images_whatever_the_batches(trained):
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    whole, parts = channel_means(trained, [images]), channel_means(trained, images.split(2))
    masks = attnet.capture_masks(trained, images)
    for name, mask in masks.items():
        assert torch.allclose(whole[name], mask.mean(dim=(0, 2, 3)), atol=1e-6)
        assert torch.allclose(whole[name], parts[name], atol=1e-6)


def test_a_constant_costs_what_no_mask_costs():
    with_masks, constant, none = (totals("attention56_cifar", attention=kind) for kind in ("mixed", "constant", "none"))
    assert constant.parameters == none.parameters + 64 + 128 + 256
    assert none.flops <= constant.flops < 0.8 * with_masks.flops


@pytest.mark.parametrize(
    ("attention", "trained", "can"),
    [
        ("gain", "mixed", True),
        ("constant", "mixed", True),
        ("none", "mixed", True),
        ("none", "gain", True),
        ("mixed", "mixed", False),
        ("mixed", "none", False),
        ("none", "none", False),
        ("constant", "channel", False),  # its masks lie around 0
    ],
)
def test_what_can_become_what(attention, trained, can):
    assert can_simplify(attention, trained) is can


SMALL = {"dataset": "shapes", "mode": "rehearsal", "train_images": 32, "test_images": 10, "train_batch_size": 8}
SMALL |= {"device_type": "CPU", "progress": "none", "is_pretrain": True}


def write(path, network, **recorded):
    torch.save({"model": network.state_dict(), "config": {"model": "attention56_tiny"} | recorded}, path)
    return str(path)


@pytest.mark.parametrize("attention", ["gain", "constant", "none"])
def test_training_goes_on_from_weights_with_simpler_masks(tmp_path, trained, attention):
    path = write(tmp_path / "w.pt", trained)
    plan = make_plan(TrainConfig(**SMALL, pretrained=path, attention=attention, num_classes=10, new_head=False))
    network = Trainer(plan).model
    own = trained.state_dict()
    for name, value in network.state_dict().items():
        if name in own:
            assert torch.equal(value, own[name]), name
    images = next(iter(plan.test_batches(split=plan.dataset.train))).images
    means = channel_means(trained, [images])
    for name, module in network.attention_modules().items():
        if attention == "constant":
            assert torch.allclose(torch.sigmoid(module.level.logit), means[name], atol=2e-4)
        assert (module.mask is None) == (attention != "gain")


def test_masks_that_were_never_trained_are_refused(tmp_path):
    bare = attnet.build_model("attention56_tiny", attention="none")
    path = write(tmp_path / "w.pt", bare, attention="none")
    with pytest.raises(WeightsError, match="missing"):
        Trainer(make_plan(TrainConfig(**SMALL, pretrained=path, attention="mixed")))
