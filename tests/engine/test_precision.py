"""Opt levels: which tensors have which type, and that training stays that of float32."""

import functools
import statistics

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnet
from attnet.base.device import KINDS
from attnet.base.errors import ConfigError
from attnet.engine.precision import Precision

CPU = KINDS["CPU"]()


def images_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Few and small: processors without bfloat16 take five times as long for it as for float32."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 16, 16, generator=generator).to(memory_format=torch.channels_last)
    return images, torch.randint(10, (8,), generator=generator)


def make(level: str, **options: object) -> tuple[nn.Module, Precision]:
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny").to(memory_format=torch.channels_last)
    return model, Precision(model, CPU, level, **options)


@functools.cache
def losses(level: str, steps: int = 5) -> list[float]:
    model, precision = make(level)
    images, labels = images_and_labels()
    seen = []
    for _ in range(steps):
        with precision.autocast():
            logits = model(images.to(precision.input_dtype))
        loss = F.cross_entropy(logits.float(), labels)
        precision.backward(loss)
        precision.step(0.02)
        seen.append(loss.item())
    return seen


def dtypes(model: nn.Module, of_norms: bool) -> set[torch.dtype]:
    modules = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) == of_norms]
    return {p.dtype for m in modules for p in m.parameters(recurse=False)}


@pytest.mark.parametrize(
    ("level", "weights", "norms", "masters"),
    [
        ("O0", torch.float32, torch.float32, torch.float32),
        ("O1", torch.float32, torch.float32, torch.float32),
        ("O2", CPU.half_dtype, torch.float32, torch.float32),
        ("O3", CPU.half_dtype, CPU.half_dtype, CPU.half_dtype),
    ],
)
def test_types(level, weights, norms, masters):
    model, precision = make(level)
    assert dtypes(model, of_norms=False) == {weights}
    assert dtypes(model, of_norms=True) == {norms}
    assert {m.dtype for m in precision.masters} == {masters}
    assert {b.dtype for b in model.buffers() if b.is_floating_point()} == {norms}


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_losses_follow_float32(level):
    """On the mean: rounding grows from step to step on eight images, otherwise on each kind of processor."""
    expected, found = losses("O0"), losses(level)
    assert expected[-1] < expected[0] - 0.3, "float32 itself learns this batch"
    assert found[0] == pytest.approx(expected[0], rel=0.01)
    assert statistics.mean(found) == pytest.approx(statistics.mean(expected), rel=0.05)
    assert found[-1] < found[0] - 0.3


@pytest.mark.parametrize("level", ["O0", "O2", "O3"])
def test_the_optimiser_is_nesterovs_sgd(level):
    """Three steps with one gradient, written down in double precision: to the rounding of the masters' type."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 1, bias=False)
    precision = Precision(layer, CPU, level, weight_decay=0.01)
    [master] = precision.masters
    weight, velocity = master.detach().double().clone(), 0.0
    images = torch.randn(1, 64).to(precision.input_dtype)
    for _ in range(3):
        precision.backward(layer(images).sum())
        gradient = images.double() + 0.01 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - 0.1 * (gradient + 0.9 * velocity)
        precision.step(0.1)
    assert torch.allclose(master.double(), weight, rtol=1e-6 if level != "O3" else 0.02, atol=1e-6)


def test_the_scale_cancels():
    """A power of two changes no float32 bit of the step, and 1 is what an unscaled step would be."""
    images, labels = images_and_labels()
    weights = {}
    for scale in (1.0, 128.0, 1024.0):
        model, precision = make("O2", loss_scale=scale)
        for _ in range(2):
            precision.backward(F.cross_entropy(model(images.to(precision.input_dtype)).float(), labels))
            precision.step(0.1)
        weights[scale] = torch.cat([m.detach().flatten() for m in precision.masters])
    assert torch.allclose(weights[1.0], weights[128.0], rtol=1e-4, atol=1e-6)
    assert torch.allclose(weights[1.0], weights[1024.0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize(("loss_scale", "after"), [(128.0, 128.0), ("dynamic", 2.0**15)])
def test_an_overflow_skips_the_step(level, loss_scale, after):
    model, precision = make(level, loss_scale=loss_scale)
    before = [p.detach().clone() for p in model.parameters()]
    precision.backward(model(images_and_labels()[0].to(precision.input_dtype)).float().sum() * float("inf"))
    precision.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert precision.skipped.item() == 1
    assert precision.scaler.get_scale() == after
    assert all(p.grad is None for p in model.parameters())

    images, labels = images_and_labels()
    precision.backward(F.cross_entropy(model(images.to(precision.input_dtype)).float(), labels))
    precision.step(0.1)
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert precision.skipped.item() == 1


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_first_step_that_overflows_leaves_no_trace(level, monkeypatch):
    """Memory that nobody has filled may hold anything: here what it must not, no numbers."""
    empty = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *args, **options: empty(*args, **options).fill_(float("nan")))
    ends = []
    for overflows in (1, 0):
        torch.manual_seed(0)
        model, precision = make(level, loss_scale=128.0)
        assert precision.optimizer.defaults["fused"]
        images, labels = images_and_labels()
        for factor in [float("inf")] * overflows + [1.0, 1.0]:
            logits = model(images.to(precision.input_dtype)).float()
            precision.backward(F.cross_entropy(logits, labels) * factor)
            precision.step(0.1)
        assert precision.skipped.item() == overflows
        state = precision.optimizer.state
        ends.append([*precision.masters, *(state[weight]["momentum_buffer"] for weight in precision.masters)])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_small_updates_survive_in_the_masters():
    """What half-precision weights would round away a thousand times adds up in float32."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    precision = Precision(layer, CPU, "O2", momentum=0.0, weight_decay=0.0)
    for _ in range(1000):
        precision.backward(layer(torch.ones(1, 1, dtype=precision.input_dtype)).sum())
        precision.step(1e-4)
    assert precision.masters[0].item() == pytest.approx(0.9, rel=1e-3)
    assert layer.weight.item() == pytest.approx(0.9, rel=1e-2)


def step(model: nn.Module, precision: Precision) -> None:
    images, labels = images_and_labels()
    with precision.autocast():
        logits = model(images.to(precision.input_dtype))
    precision.backward(F.cross_entropy(logits.float(), labels))
    precision.step(0.05)


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
def test_state_round_trip_continues_bit_for_bit(level):
    model, precision = make(level, loss_scale="dynamic")
    step(model, precision)
    weights = {n: t.clone() for n, t in precision.full_weights(model).items()}
    state = {**precision.state(), "skipped": precision.skipped.clone()}
    state["optimizer"] = {
        "state": {k: {n: t.clone() for n, t in v.items()} for k, v in state["optimizer"]["state"].items()},
        "param_groups": state["optimizer"]["param_groups"],
    }
    step(model, precision)
    if level == "O2":
        assert {t.dtype for t in weights.values() if t.is_floating_point()} == {torch.float32}

    other, resumed = make(level, loss_scale="dynamic")
    resumed.load_full_weights(other, weights)
    resumed.load_state(state)
    step(other, resumed)
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert resumed.scaler.state_dict() == precision.scaler.state_dict()


def momentum_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [
        optimizer.state[weight]["momentum_buffer"] for group in optimizer.param_groups for weight in group["params"]
    ]


def test_momentum_goes_on_with_its_own_weights_however_they_lie_in_memory():
    model, precision = make("O0")
    step(model, precision)
    other = attnet.build_model("attention56_tiny")  # not channels-last, as a run may go on
    resumed = Precision(other, CPU, "O0")
    resumed.load_full_weights(other, precision.full_weights(model))
    resumed.load_state(precision.state())
    for found, weight, expected in zip(
        momentum_of(resumed.optimizer), resumed.masters, momentum_of(precision.optimizer), strict=True
    ):
        assert torch.equal(found, expected) and found.stride() == weight.stride()


def change(state: dict, place: int, value: object) -> None:
    state["optimizer"]["state"][place] = {"momentum_buffer": value}


FOREIGN_MOMENTUM = {
    "of a smaller weight": lambda state: change(state, 0, torch.ones(2)),  # fused SGD would read on behind its end
    "of a weight that is not there": lambda state: change(state, 10_000, torch.ones(2)),
    "of fewer weights": lambda state: state["optimizer"]["state"].pop(0),
}


@pytest.mark.parametrize("name", FOREIGN_MOMENTUM)
def test_momentum_of_other_weights_is_refused(name):
    model, precision = make("O0")
    step(model, precision)
    state = precision.state()
    FOREIGN_MOMENTUM[name](state)
    with pytest.raises(ConfigError, match="momentum in it is that of other weights"):
        make("O0")[1].load_state(state)


def test_momentum_that_repeats_one_number_is_laid_out_in_full():
    model, precision = make("O0")
    step(model, precision)
    state, (first, *_) = precision.state(), precision.masters
    change(state, 0, torch.ones(1).expand(first.shape))
    precision.load_state(state)
    assert momentum_of(precision.optimizer)[0].untyped_storage().nbytes() == 4 * first.numel()
