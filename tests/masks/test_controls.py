"""What masks are held against: maps of the image alone, and networks that have learned nothing."""

import math

import pytest
import torch
from torch import Tensor, nn

import attnet
from attnet.base.errors import ConfigError
from attnet.masks.controls import IMAGE_CONTROLS, centre_prior, image_controls, random_maps, randomised, untrained
from attnet.masks.localise import localise
from attnet.model.parts import network_parts


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(5)
    network = attnet.build_model("attention56_tiny")
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(3.0)
    return network.eval()


# -- maps of the image alone --------------------------------------------------------------------------------------


def square() -> tuple[Tensor, Tensor]:
    """A red square on grey, not in the middle."""
    image = torch.full((1, 3, 32, 32), 0.5)
    image[:, :, 4:14, 16:28] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    inside = torch.zeros(1, 32, 32, dtype=torch.bool)
    inside[:, 4:14, 16:28] = True
    return image, inside


def test_each_control_sees_what_it_is_named_after():
    image, inside = square()
    maps = image_controls(image)
    assert list(maps) == list(IMAGE_CONTROLS) and all(values.shape == (1, 32, 32) for values in maps.values())
    score = {name: localise(values, inside).auroc.item() for name, values in maps.items()}
    assert score["colour distance from the frame"] > 0.99 and score["saturation"] > 0.99
    assert score["edges"] > 0.6 and score["smoothness"] < 0.4 and score["local entropy"] > 0.6
    edges = maps["edges"][0]
    assert edges[8, 22] == 0 < edges[8, 16], "nothing changes within the square, nor far from it"
    assert edges[20, 5] == 0
    shifted = image_controls(image.roll(7, dims=2))
    for name in set(maps) - {"centre prior", "edges x centre"}:
        torch.testing.assert_close(shifted[name][0, 12:28], maps[name][0, 5:21], msg=name)
    torch.testing.assert_close(maps["edges x centre"], maps["edges, 5x5 mean"] * centre_prior(1, (32, 32)))


def test_bytes_batches_and_sizes_make_no_difference():
    pixels = torch.randint(0, 256, (230, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    whole = image_controls(pixels)
    for name, values in image_controls(pixels[199:202].double() / 255).items():
        torch.testing.assert_close(values, whole[name][199:202], rtol=1e-4, atol=1e-5)
    large = torch.nn.functional.interpolate(square()[0], scale_factor=4, mode="nearest")
    small, big = (
        localise(image_controls(image)["edges, 5x5 mean"], image[:, 1] < 0.1) for image in (square()[0], large)
    )
    assert big.auroc.item() == pytest.approx(small.auroc.item(), abs=0.05), "windows grow with the image"


def test_centre_prior():
    maps = centre_prior(3, (8, 12))
    assert maps.shape == (3, 8, 12) and maps.dtype == torch.float32
    assert torch.equal(maps[0], maps[2]) and torch.equal(maps, maps.flip(1)) and torch.equal(maps, maps.flip(2))
    # Pixel (2, 4) lies 1.5 pixels from the centre both ways; σ is 2 pixels down and 3 across.
    assert maps[1, 2, 4].item() == pytest.approx(math.exp(-(0.75**2 + 0.5**2) / 2))


def test_random_maps():
    state = torch.get_rng_state()
    maps = random_maps(20, (30, 40), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert maps.shape == (20, 30, 40) and maps.dtype == torch.float32
    assert torch.equal(maps, random_maps(20, (30, 40), seed=3)) and not torch.equal(maps, random_maps(20, (30, 40)))
    assert 0 <= maps.min() < 0.01 and 0.99 < maps.max() < 1 and not torch.equal(maps[0], maps[1])
    assert maps.mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: centre_prior(0, (4, 4)), r"count=0, size=\(4, 4\): at least one map"),
        (lambda: random_maps(2, (4, 0)), r"count=2, size=\(4, 0\): at least one map"),
    ],
)
def test_no_maps_of_nothing(call, sentence):
    with pytest.raises(ConfigError, match=sentence):
        call()


# -- networks ---------------------------------------------------------------------------------------------------------


def test_an_untrained_network_has_fresh_weights_and_fitting_norms(model, images):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = untrained(model, images, seed=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "the given one stays"
    assert not network.training and not any(module.training for module in network.modules())
    assert not torch.equal(network.fc.weight, model.fc.weight)
    torch.manual_seed(1)
    fresh = attnet.build_model("attention56_tiny")
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), fresh.parameters(), strict=True))
    seen: list[Tensor] = []
    network.stem[1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        network(images)
    assert seen[0].mean().abs() < 0.01 and seen[0].std() == pytest.approx(1, abs=0.01)
    assert torch.equal(untrained(model, images, seed=1).fc.weight, network.fc.weight)


def test_weights_are_lost_from_the_head_down(model, images):
    lost = []
    for part, network in randomised(model, images):
        lost.append(part)
        for name, module in network_parts(network).items():
            kept = [
                torch.equal(one, other)
                for one, other in zip(module.parameters(), network_parts(model)[name].parameters(), strict=True)
                if one.dim() > 1
            ]
            assert all(kept) if name not in lost else not any(kept), (part, name)
    assert lost == ["head", "norm", "tail", "stage3", "stage2", "stage1", "stem"]
