"""Training with apex is native torch's, and each goes on from the other's checkpoint."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnet.base.device import KINDS
from attnet.base.errors import ConfigError
from attnet.engine.apex import ApexPrecision, FusedPrecision
from attnet.engine.precision import Precision

pytest_plugins = "harness_apex"

CPU = KINDS["CPU"]()
LEVELS = ("O0", "O1", "O2", "O3")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10)
    )


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 3, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator)


def backward(precision: Precision, factor: float = 1.0, last: bool = True) -> float:
    images, labels = batch()
    with precision.autocast():
        logits = precision.network(images.to(precision.input_dtype))
    loss = F.cross_entropy(logits.float(), labels)
    precision.backward(loss * factor, last)
    return loss.item()


def train(precision: Precision, steps: int = 6, lr: float = 0.05, micro_batches: int = 1) -> list[float]:
    losses = []
    for _ in range(steps):
        for index in range(micro_batches):
            loss = backward(precision, 1 / micro_batches, index == micro_batches - 1)
        losses.append(loss)
        precision.step(lr)
    return losses


def weights(model: nn.Module, precision: Precision) -> torch.Tensor:
    return torch.cat([value.float().flatten() for value in precision.full_weights(model).values()])


BOTH = pytest.mark.parametrize("installed", ["ascend", "former"])


@BOTH
@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize(
    "options",
    [{}, {"loss_scale": "dynamic"}, {"no_bias_decay": True, "weight_decay": 0.1}],
    ids=["static", "dynamic", "decay"],
)
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_losses_and_weights_are_those_of_native_torch(install, installed, level, options, micro_batches):
    install(installed)
    seen, final = [], []
    for kind in (Precision, ApexPrecision):
        model = network()
        precision = kind(model, CPU, level, **options)
        seen.append(train(precision, micro_batches=micro_batches))
        final.append(weights(model, precision))
    assert seen[0][-1] < seen[0][0] - 0.3, "native torch itself learns this batch"
    assert seen[1] == pytest.approx(seen[0], rel=0.01)
    assert torch.allclose(final[1], final[0], atol=2e-3)


@BOTH
@pytest.mark.parametrize("scale", [1.0, 128.0])
def test_exact_numbers_give_exactly_the_same_weights(install, installed, scale):
    install(installed)
    seen = []
    for kind in (Precision, ApexPrecision):
        model = nn.Linear(2, 2)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, -0.5], [0.25, 2.0]]))
            model.bias.copy_(torch.tensor([0.5, -1.0]))
        precision = kind(model, CPU, "O2", loss_scale=scale, momentum=0.5, weight_decay=0.25, no_bias_decay=True)
        for _ in range(3):
            images = torch.tensor([[1.0, 2.0], [-0.5, 1.0]], dtype=precision.input_dtype)
            precision.backward(precision.network(images).float().sum())
            precision.step(0.25)
        seen.append(weights(model, precision))
    assert torch.equal(seen[0], seen[1])


@BOTH
def test_types_and_masters_at_o2(install, installed):
    install(installed)
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    precision = ApexPrecision(model, CPU, "O2")
    assert {m.weight.dtype for m in model if isinstance(m, nn.Conv2d | nn.Linear)} == {CPU.half_dtype}
    assert model[1].weight.dtype == model[1].running_mean.dtype == torch.float32
    full = precision.full_weights(model)
    assert full.keys() == before.keys()
    for name, value in full.items():
        assert torch.equal(value, before[name]) or name.startswith(("0", "4")), name
    # What is followed for an average changes in place, from before the first step.
    train(precision, steps=2)
    for name, value in precision.full_weights(model).items():
        assert torch.equal(value, full[name]), name
        assert value.dtype == before[name].dtype


@pytest.mark.parametrize(
    ("installed", "level", "optimizer"),
    [
        ("ascend", "O1", "SGD"),
        ("ascend", "O2", "NpuFusedSGD"),
        ("former", "O1", "FusedSGD"),
        ("former", "O2", "FusedSGD"),
    ],
)
def test_optimizers_and_combined_gradients(install, installed, level, optimizer):
    install(installed)
    precision = ApexPrecision(network(), CPU, level)
    assert type(precision.optimizer).__name__ == optimizer
    assert bool(getattr(precision.optimizer, "accelerate", False)) == (installed == "ascend")
    assert not precision.bucket_views


def test_the_optimiser_lives_as_long_as_the_network(install):
    install("ascend")
    model = network()
    precision = ApexPrecision(model, CPU, "O2")
    train(precision, steps=1)
    optimizer = weakref.ref(precision.optimizer)
    del precision
    gc.collect()
    assert optimizer() is not None
    del model
    gc.collect()
    assert optimizer() is None


@BOTH
def test_the_network_keeps_its_own_forward(install, installed):
    install(installed)
    model = network()
    precision = ApexPrecision(model, CPU, "O2")
    assert "forward" not in vars(model)
    images = batch()[0]
    assert precision.network(images).dtype == torch.float32
    assert copy.deepcopy(model).float()(images).dtype == torch.float32


@BOTH
def test_o1_casts_in_training_alone(install, installed):
    install(installed)
    precision = ApexPrecision(network(), CPU, "O1")
    layer, images = nn.Conv2d(3, 2, 1), batch()[0]
    assert layer(images).dtype == torch.float32
    train(precision, steps=1)
    assert layer(images).dtype == torch.float32
    with precision.autocast():
        assert layer(images).dtype == CPU.half_dtype


@BOTH
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_dynamic_scale_skips_an_overflow_and_counts_it(install, installed, level):
    install(installed)
    model = network()
    precision = ApexPrecision(model, CPU, level, loss_scale="dynamic")
    train(precision, steps=1)
    before = [p.detach().clone() for p in model.parameters()]
    backward(precision, float("inf"))
    precision.step(0.05)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert precision.skipped.item() == 1
    assert precision.state()["scaler"] == Precision(network(), CPU, level).scaler.state_dict() | {"scale": 2.0**15}
    train(precision, steps=1)
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert precision.skipped.item() == 1


def saved(model: nn.Module, precision: Precision) -> tuple[dict, dict]:
    """As a checkpoint holds it: its own copy."""
    return copy.deepcopy(({n: t.detach() for n, t in precision.full_weights(model).items()}, precision.state()))


@BOTH
@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("to", ["native", "apex"])
@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "trained"])
def test_a_run_goes_on_with_the_other_backend(install, installed, level, to, warm):
    """The first steps after the change, momentum and all, are those of the backend it came from."""
    install(installed)
    options = {"loss_scale": "dynamic", "no_bias_decay": True}
    kinds = (ApexPrecision, Precision) if to == "native" else (Precision, ApexPrecision)
    model = network()
    first = kinds[0](model, CPU, level, **options)
    train(first, steps=2)
    backward(first, float("inf"))
    first.step(0.05)
    full, state = saved(model, first)
    assert {t.dtype for t in full.values() if t.is_floating_point()} == {torch.float32}
    expected = train(first, steps=3)

    other = network()
    second = kinds[1](other, CPU, level, **options)
    train(second, steps=2 * warm)  # what a second object has done before must leave no trace
    own = [{k: v for k, v in g.items() if k != "params"} for g in second.optimizer.param_groups]
    second.load_full_weights(other, full)
    second.load_state(state)
    assert [{k: v for k, v in g.items() if k != "params"} for g in second.optimizer.param_groups] == own
    for name, value in second.full_weights(other).items():
        assert torch.equal(value, full[name]), name
    again = second.state()
    assert again["scaler"] == state["scaler"]
    assert again["skipped"] == state["skipped"] == 1
    assert again["optimizer"]["state"].keys() == state["optimizer"]["state"].keys()
    for index, entry in again["optimizer"]["state"].items():
        assert torch.equal(entry["momentum_buffer"], state["optimizer"]["state"][index]["momentum_buffer"])
    assert train(second, steps=3) == pytest.approx(expected, rel=0.01)
    assert torch.allclose(weights(other, second), weights(model, first), atol=1e-3)


@BOTH
def test_state_has_the_form_of_native_torch(install, installed):
    install(installed)
    states = []
    for kind in (Precision, ApexPrecision):
        precision = kind(network(), CPU, "O2", no_bias_decay=True)
        train(precision, steps=1)
        states.append(precision.state())
    native, ours = states
    assert ours.keys() == native.keys()
    assert ours["scaler"] == native["scaler"]
    for group, native_group in zip(ours["optimizer"]["param_groups"], native["optimizer"]["param_groups"], strict=True):
        assert {name: native_group[name] for name in group} == group


def test_a_checkpoint_can_be_loaded_twice(install):
    """Ascend's apex combines momentum into one tensor: what is loaded later has to get there too."""
    install("ascend")
    model = network()
    precision = ApexPrecision(model, CPU, "O2")
    train(precision, steps=2)
    full, state = saved(model, precision)
    losses = []
    for _ in range(2):
        precision.load_full_weights(model, full)
        precision.load_state(copy.deepcopy(state))
        losses.append(train(precision, steps=3))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss_scale", [128.0, "dynamic"])
def test_native_torch_with_apex_optimizer(install, level, loss_scale):
    """The same losses, an overflow between them, and each goes on from where the other was saved."""
    install("nvidia")
    options = {"loss_scale": loss_scale, "no_bias_decay": True}
    losses = {}
    for kind, other_kind in ((Precision, FusedPrecision), (FusedPrecision, Precision)):
        model, other = network(), network()
        precision = kind(model, CPU, level, **options)
        before = train(precision, steps=3)
        if level in ("O1", "O2"):
            backward(precision, float("inf"))
            precision.step(0.05)
            assert precision.skipped.item() == 1
        full, state = saved(model, precision)
        resumed = other_kind(other, CPU, level, **options)
        resumed.load_full_weights(other, full)
        resumed.load_state(state)
        losses[kind] = before + train(precision, steps=3)
        losses[kind, "resumed"] = before + train(resumed, steps=3)
    assert losses[Precision][-1] < losses[Precision][0] - 0.3, "native torch itself learns this batch"
    for seen in losses.values():
        assert seen == pytest.approx(losses[Precision], rel=0.1 if level == "O3" else 0.01)


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (lambda precision, model: setattr(model[0].weight, "data", model[0].weight.data.clone()), RuntimeError),
        (lambda precision, model: setattr(model[1].weight, "grad", None), RuntimeError),
        (lambda precision, model: model.zero_grad(set_to_none=True), AssertionError),
        (lambda precision, model: precision.optimizer.zero_grad(set_to_none=True), TypeError),
        (lambda precision, model: precision.optimizer.step(), RuntimeError),
    ],
    ids=["weight elsewhere", "gradient gone", "network's set_to_none", "optimiser's set_to_none", "step alone"],
)
def test_the_stand_in_minds_what_ascends_apex_minds(install, break_it, error):
    install("ascend")
    model = network()
    precision = ApexPrecision(model, CPU, "O2")
    train(precision, steps=1)
    with pytest.raises(error):
        break_it(precision, model)
        train(precision, steps=1)


def test_an_apex_that_cannot_be_imported_says_so(install):
    install("unrelated")
    with pytest.raises(ConfigError, match=r"unrelated.*pyramid_mailer.*amp_backend=native"):
        ApexPrecision(network(), CPU, "O2")


@BOTH
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_frozen_weights_stay_in_full_and_others_have_their_own_rates(install, installed, level):
    """apex keeps masters of what it trains alone; a run with native torch is the measure."""
    install(installed)
    final = []
    for kind in (Precision, ApexPrecision):
        model = network()
        before = model[0].weight.detach().clone()
        model[0].requires_grad_(False)
        precision = kind(model, CPU, level, no_bias_decay=True, factors={"1.weight": 0.5, "1.bias": 0.5})
        train(precision)
        full = precision.full_weights(model)
        assert torch.equal(full["0.weight"], before)
        precision.load_full_weights(model, {name: value.clone() for name, value in full.items()})
        assert torch.equal(precision.full_weights(model)["0.weight"], before)
        assert [group["lr"] for group in precision.optimizer.param_groups] == [0.025, 0.05, 0.05]
        final.append(weights(model, precision))
    assert torch.allclose(final[1], final[0], atol=2e-3)
