"""A frame holds, for every module at once, what looks at one module after another show."""

import pytest
import torch

import attnet
from attnet.base.errors import ConfigError
from attnet.masks.frames import make_frames, variation
from attnet.masks.look import GRAD_CAM, Looker, View
from attnet.masks.reduce import REDUCTIONS, reduce_channels
from attnet.masks.replace import intervene
from attnet.masks.saliency import grad_cam
from attnet.model.pretrained import Pretrained


@pytest.fixture(scope="module")
def looker() -> Looker:
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny").eval()
    return Looker(Pretrained(model, tuple("abcdefghij"), "none"))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_panels_are_the_masks_of_each_image(looker, images):
    frames = make_frames(looker, images, View("stage1.0"))
    masks = attnet.capture_masks(looker.network.model, images)
    assert len(frames) == 3 and list(frames[0].panels) == list(masks)
    for place, frame in enumerate(frames):
        for name, panel in frame.panels.items():
            torch.testing.assert_close(panel.channels, masks[name][place])
            assert set(panel.maps) == set(REDUCTIONS)
            torch.testing.assert_close(panel.maps["max"], reduce_channels(masks[name], "max")[place])
            assert panel.scales["mean"].centre == 0.5 and panel.scales["std"].centre is None
            assert panel.scales["channel"].largest == pytest.approx(masks[name][place].max().item())


@pytest.mark.parametrize("everywhere", [False, True])
def test_replaced_masks_are_what_is_shown_and_what_flows_on(looker, images, everywhere):
    view = View("stage2.0", intervention="zero", everywhere=everywhere)
    frame = make_frames(looker, images[:1], view)[0]
    plan = dict.fromkeys(["stage1.0", "stage2.0", "stage3.0"] if everywhere else ["stage2.0"], "zero")
    expected = intervene(looker.network.model, images[:1], plan).softmax(dim=1)[0]
    torch.testing.assert_close(frame.probabilities, expected)
    assert frame.panels["stage2.0"].channels.abs().max() == 0
    assert (frame.panels["stage1.0"].channels.abs().max() == 0) == everywhere
    assert not torch.equal(frame.probabilities, frame.untouched)


def test_effects_are_of_the_predicted_class_without_each_mask(looker, images):
    frames = make_frames(looker, images, View("stage1.0"), effects=True)
    before = looker.untouched(images).logits.softmax(dim=1)
    for name in ("stage1.0", "stage3.0"):
        without = intervene(looker.network.model, images, {name: "zero"}).softmax(dim=1)
        for place, frame in enumerate(frames):
            k = before[place].argmax()
            assert frame.effects[name] == pytest.approx((without - before)[place, k].item(), abs=1e-6)


def test_grad_cam_is_of_the_chosen_module(looker, images):
    frame = make_frames(looker, images[:1], View("stage2.0", GRAD_CAM))[0]
    assert list(frame.panels) == ["stage2.0"]
    expected = grad_cam(looker.network.model, images[:1], module="stage2.0", full_size=False)[0]
    torch.testing.assert_close(frame.panels["stage2.0"].maps[GRAD_CAM], expected)


def test_parts_that_a_module_lacks_are_left_out_and_unknown_ones_refused(looker, images):
    assert list(make_frames(looker, images[:1], View("stage1.0", "1/4"))[0].panels) == ["stage1.0"]
    with pytest.raises(ConfigError, match="part='1/16'"):
        make_frames(looker, images[:1], View("stage1.0", "1/16"))


def test_variation_is_over_places():
    channels = torch.stack([torch.full((4, 4), 9.0), torch.arange(16.0).reshape(4, 4)])
    assert variation(channels)[0] == 0 < variation(channels)[1]
