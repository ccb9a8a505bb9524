"""Grad-CAM against formulas and against another library."""

import pytest
import torch
import torch.nn.functional as F
from networks import varied
from torch import Tensor, nn

import attnet
from attnet.base.errors import ConfigError
from attnet.masks.replace import intervening
from attnet.masks.saliency import grad_cam
from attnet.model.network import ResidualAttentionNetwork


@pytest.fixture
def model() -> ResidualAttentionNetwork:
    return varied()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def enlarge(maps: Tensor) -> Tensor:
    return F.interpolate(maps[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]


# -- Grad-CAM -----------------------------------------------------------------------------------------------------


def test_at_the_last_features_the_weights_are_the_classifiers(model, images):
    """Pooling is a mean and the classifier linear: the gradient is its weight over the number of positions."""
    targets = torch.tensor([4, 0, 9])
    maps = grad_cam(model, images, targets)
    with torch.no_grad():
        model.eval()
        features = F.relu(model.norm(model.tail(model.stages(model.stem(images)))))
        weights = model.fc.weight[targets] / (8 * 8)
        expected = F.relu(torch.einsum("nc,nchw->nhw", weights, features))
    assert maps.dtype == torch.float32 and maps.shape == (3, 32, 32)
    torch.testing.assert_close(maps, enlarge(expected))
    assert maps.min() == 0 < maps.max()
    assert (features == 0).any()  # there, too, the gradient counts


@pytest.mark.parametrize("name", ["stage1.0", "stage2.0", "stage3.0"])
def test_at_a_module_against_autograd_by_hand(model, images, name):
    maps = grad_cam(model, images, module=name)
    model.eval()
    features = model.stages[: int(name[5])](model.stem(images)).detach().requires_grad_()
    rest = F.relu(model.norm(model.tail(model.stages[int(name[5]) :](features))))
    logits = model.fc(rest.mean(dim=(2, 3)))
    gradient = torch.autograd.grad(logits.amax(dim=1).sum(), features)[0]  # the predicted class is the default
    expected = F.relu((gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1))
    torch.testing.assert_close(maps, enlarge(expected.detach()))
    assert maps.max() > 0


def test_batches_number_types_and_wrappers_make_no_difference(model, images):
    pixels = (images * 255).byte()
    expected = grad_cam(model, pixels)
    wrapped = torch.compile(model, backend="eager")
    for maps in (grad_cam(model, pixels.float() / 255, batch_size=2), grad_cam(wrapped, pixels)):
        torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(grad_cam(model, pixels[1]), expected[1:2])
    targets = torch.tensor([3, 1, 2])
    torch.testing.assert_close(grad_cam(model, pixels, targets, batch_size=1), grad_cam(model, pixels, targets))
    assert grad_cam(model.to(torch.bfloat16), pixels).dtype == torch.float32


@pytest.mark.parametrize("module", [None, "stage2.0"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_gradient_mode_and_frozen_parameters(model, images, module, mode):
    expected = grad_cam(model, images, module=module)
    model.requires_grad_(False)
    with mode():
        enabled = torch.is_grad_enabled()
        maps = grad_cam(model, images + 0, module=module)
        assert torch.is_grad_enabled() == enabled
    assert torch.equal(maps, expected) and not maps.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("module", [None, "stage1.0"])
@pytest.mark.parametrize("fails", [False, True], ids=["works", "raises"])
def test_the_network_is_left_as_it_was(model, images, module, fails):
    model.train()
    model.stem.eval()
    modes = [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if fails:
        model.fc.weight, weight = nn.Parameter(model.fc.weight[:, :1].detach()), model.fc.weight
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            grad_cam(model, images, module=module)
        model.fc.weight = weight
    else:
        grad_cam(model, images, module=module)
    assert hooks(model) == 0
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_nothing_is_recorded_before_the_place(model, images):
    graphs = []
    model.tail.register_forward_hook(lambda _module, _inputs, output: graphs.append(output.requires_grad))
    model.stages.stage2.register_forward_hook(lambda _module, _inputs, output: graphs.append(output.requires_grad))
    grad_cam(model, images)
    grad_cam(model, images, module="stage3.0")
    assert graphs == [False, False, False, True]


def test_grad_cam_of_a_network_whose_masks_are_replaced(model, images):
    trunk = attnet.build_model("attention56_tiny", attention="none")
    trunk.load_state_dict(model.state_dict(), strict=False)
    for module in (None, "stage1.0"):
        with intervening(model, dict.fromkeys(model.attention_modules(), "zero")):
            torch.testing.assert_close(grad_cam(model, images, module=module), grad_cam(trunk, images, module=module))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": "stage9.0"}, r"module='stage9\.0': this network has stage1\.0"),
        ({"targets": torch.tensor([0, 1])}, r"targets of shape \[2\] and dtype torch\.int64: .* \[3\] here"),
        ({"targets": torch.rand(3)}, "dtype torch.float32: a whole number for each image"),
        ({"targets": torch.tensor([0, 1, 10])}, "targets from 0 to 10: the model has classes 0 to 9"),
    ],
)
def test_what_grad_cam_refuses(model, images, arguments, message):
    with pytest.raises(ConfigError, match=message):
        grad_cam(model, images, **arguments)
    assert hooks(model) == 0


def test_grad_cam_needs_a_network_of_images(images):
    with pytest.raises(ConfigError, match="Linear does not take images"):
        grad_cam(nn.Linear(3, 3), images)


@pytest.mark.slow
def test_grad_cam_is_that_of_another_library(model, images):
    captum = pytest.importorskip("captum.attr", reason='pip install -e ".[test]" brings captum')
    model.eval()
    for name, module in model.attention_modules().items():
        theirs = captum.LayerGradCam(model, module).attribute(images, target=3, relu_attributions=True)
        ours = grad_cam(model, images, torch.full((3,), 3), module=name)
        torch.testing.assert_close(ours, enlarge(theirs.detach()[:, 0]), rtol=1e-3, atol=1e-6)
