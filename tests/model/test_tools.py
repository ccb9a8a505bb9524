"""Other people's tools see a plain nn.Module; training by the engine alone works in place, with the same numbers."""

import copy
import dataclasses
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from networks import tiny, trained
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, replace_all_batch_norm_modules_, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from attnet.base.device import choose
from attnet.engine.distributed import World
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import decide
from attnet.engine.step import TrainStep
from attnet.model.folding import folded
from attnet.model.modules import ATTENTION_TYPES
from attnet.model.network import ResidualAttentionNetwork
from attnet.model.pretrained import load_pretrained
from attnet.model.units import UNITS, InPlace, set_inplace
from attnet.model.variants import variants

KINDS = [*({"unit": unit} for unit in UNITS), {"attention": "channel"}, {"attention": "spatial"}, {"combine": "naive"}]
KINDS += [{"sums": "paper"}]


def small(**options: object) -> ResidualAttentionNetwork:
    """One stage, whose mask branch has every step; always the same network."""
    row = dataclasses.replace(variants()["attention56_tiny"], modules=(1,), depths=(2,), widths=(16,), tail_width=16)
    torch.manual_seed(0)
    return trained(ResidualAttentionNetwork(dataclasses.replace(row, **options)))


@pytest.fixture(params=KINDS, ids=lambda options: "-".join(options.values()))
def model(request) -> nn.Module:
    return small(**request.param)


@pytest.fixture(params=[{}, {"unit": "resnext", "attention": "spatial"}], ids=["plain-train", "other-eval"])
def either(request) -> nn.Module:
    """For what takes seconds: tracing. Each kind of network, each mode."""
    return small(**request.param).train(not request.param)


@pytest.fixture(params=[True, False], ids=["train", "eval"])
def training(request) -> bool:
    return request.param


def images(size: int = 16) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def pure(model: nn.Module) -> tuple[Callable[..., Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """(weights, statistics, images) -> logits, and both."""
    weights = {name: value.detach() for name, value in model.named_parameters()}
    return (lambda p, b, x: functional_call(model, (p, b), (x,))), weights, dict(model.named_buffers())


def test_a_traced_network_is_saved_and_gives_the_same_logits(either):
    model = either
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, images()), file)
    file.seek(0)
    assert torch.equal(torch.jit.load(file)(images()), model(images()))


def test_forward_and_backward_derivatives_agree(model, training):
    """jvp, grad and jacrev against autograd's own backward pass."""
    if training:
        replace_all_batch_norm_modules_(model)  # as torch.func wants it: no running statistics
    call, weights, statistics = pure(model.double().train(training))
    x = images(8).double().requires_grad_()
    model(x)[0, 0].backward()
    expected, x = x.grad, x.detach()
    assert expected.abs().sum() > 0
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    torch.testing.assert_close(jacrev(call, argnums=2)(weights, statistics, x)[0, 0], expected)
    _, slope = jvp(lambda x: call(weights, statistics, x), (x,), (direction,))
    torch.testing.assert_close(slope[0, 0], (expected * direction).sum())
    gradients = grad(lambda p: call(p, statistics, x)[0, 0])(weights)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


def test_gradients_of_each_image_and_networks_side_by_side(model):
    call, weights, statistics = pure(model.double().eval())
    x = images(8).double()
    each = vmap(grad(lambda p, x: call(p, statistics, x[None]).sum()), (None, 0))(weights, x)
    model(x[1:]).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(each[name][1], parameter.grad)
    model.train()
    stacked = [{name: torch.stack([v, v]) for name, v in part.items()} for part in (weights, statistics)]
    both = vmap(lambda p, b: call(p, b, x))(*stacked)
    torch.testing.assert_close(both[1], model(x))


def test_hooks_see_every_layer_as_it_was_computed(model, training):
    """What Grad-CAM libraries do, on all layers at once: gradients by hooks, which change nothing."""
    model.train(training)
    plain = copy.deepcopy(model)
    plain(images()).sum().backward()
    forward, backward = {}, {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: forward.update({name: (out, out.detach().clone())}))
        module.register_full_backward_hook(lambda _m, _i, out, name=name: backward.update({name: out[0]}))
    model(images().requires_grad_()).sum().backward()
    assert forward.keys() == backward.keys() and len(forward) > 80
    for name, (kept, seen) in forward.items():
        assert torch.equal(kept, seen), f"{name}: overwritten after its hook has seen it"
        assert backward[name].shape == seen.shape
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_export_fx_copies_and_wrappers(either):
    model = either
    logits = model(images())
    for other in (
        torch.export.export(model, (images(),)).module(),
        torch.fx.symbolic_trace(model),
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        nn.DataParallel(model),
    ):
        torch.testing.assert_close(other(images()), logits, rtol=1e-4, atol=1e-5)


def test_a_network_opened_with_its_colours_is_as_plain(tmp_path):
    content = {"model": tiny().state_dict(), "config": {"model": "attention56_tiny", "normalize": True}}
    torch.save(content | {"colour": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.4]}}, tmp_path / "best.pt")
    opened = load_pretrained(tmp_path / "best.pt").model
    logits = opened(images())
    assert (tiny().eval()(images()) - logits).abs().max() > 1e-3
    for other in (pickle.loads(pickle.dumps(opened)), copy.deepcopy(opened), torch.jit.trace(opened, images())):
        torch.testing.assert_close(other(images()), logits)


# -- in place ----------------------------------------------------------------------------------------------------


class Written(TorchDispatchMode):
    """Counts the elements that operators write to memory of their own."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and not any(out is argument for argument in args):
            self.count += out.numel()
        return out


def step(model: nn.Module) -> tuple[list[Tensor], list[Tensor], int]:
    """What a training step computes forward, its gradients, and the elements for which memory was asked for."""
    with Written() as written:
        logits = model(images())
        logits.logsumexp(1).sum().backward()
    return [logits, *model.buffers()], [p.grad for p in model.parameters()], written.count


def test_the_same_numbers_in_less_memory(model):
    plain, in_place = model.train(), copy.deepcopy(model)
    set_inplace(in_place)
    (expected, gradients, most), (found, others, less) = step(plain), step(in_place)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    for one, other in zip(gradients, others, strict=True):  # summed in another order
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert less < 0.95 * most


@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_a_training_step_works_in_place_until_it_lets_go(attention):
    model = tiny(attention=attention, unit="inception")
    assert not any(module.inplace for module in ours(model))
    config = decide(TrainConfig(model="attention56_tiny", dataset="shapes", mode="rehearsal", device_type="CPU")).config
    training = TrainStep(model, config.replace(num_classes=10), choose("CPU"), World())
    assert all(module.inplace for module in ours(model))
    assert all(module.inplace for module in ours(folded(tiny())))
    training.let_go()
    assert not any(module.inplace for module in ours(model))


def ours(model: ResidualAttentionNetwork) -> list[InPlace]:
    found = [module for module in model.modules() if isinstance(module, InPlace)]
    assert any(isinstance(module, nn.ReLU) for module in found) and model in found
    return found


def test_a_unit_of_the_users_is_left_alone():
    mine = nn.Sequential(nn.ReLU(), nn.ReLU(inplace=True))
    set_inplace(mine, on=True)
    assert [layer.inplace for layer in mine] == [False, True]
    set_inplace(mine, on=False)
    assert [layer.inplace for layer in mine] == [False, True]


@pytest.mark.parametrize("unit", UNITS)
def test_sums_of_two_types_round_alike(unit):
    """As under autocast: half-precision layers add to float32 features, in place or not."""
    model = small(unit=unit)
    results = []
    for on in (False, True):
        set_inplace(model, on)
        with torch.autocast("cpu", torch.bfloat16):
            results.append(copy.deepcopy(model)(images()))
    assert torch.equal(*results)
