"""Parts of a network: frozen ones keep weights and statistics at every precision, lower ones learn more slowly."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

import attnet
from attnet.base.errors import ConfigError
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan
from attnet.model.parts import frozen_parts, network_parts, part_names, rate_factors

SMALL = {
    "model": "attention56_tiny",
    "dataset": "shapes",
    "mode": "rehearsal",
    "train_images": 16,
    "test_images": 10,
    "train_batch_size": 4,
    "total_epochs": 2,
    "progress": "none",
    "device_type": "CPU",
}


def make(**changes: object) -> Trainer:
    trainer = Trainer(make_plan(TrainConfig(**{**SMALL, **changes})))
    trainer.train_step.train()
    return trainer


def full(trainer: Trainer) -> dict[str, Tensor]:
    """Every weight and statistic in full precision."""
    weights = trainer.train_step.precision.full_weights(trainer.model)
    return {name: value.detach().clone() for name, value in weights.items()}


def take_steps(trainer: Trainer, lr: float = 0.05) -> None:
    for micro in trainer.train_batches.epoch(0):
        trainer.train_step(micro, lr)


@pytest.mark.parametrize("name", ["attention56_tiny", "attention92_448"])
def test_parts_hold_every_parameter_once(name):
    with torch.device("meta"):
        model = attnet.build_model(name)
    parts = network_parts(model)
    assert tuple(parts) == part_names(model.variant)
    held = [id(parameter) for part in parts.values() for parameter in part.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


def test_parts_by_name():
    tiny = attnet.variants()["attention56_tiny"]
    assert frozen_parts(tiny, "") == ()
    assert frozen_parts(tiny, " tail,stem ") == ("stem", "tail")
    assert frozen_parts(tiny, "body") == ("stem", "stage1", "stage2", "stage3", "tail", "norm")
    with pytest.raises(ConfigError, match=r"freeze='stage4': 'stage4' is no part.*stage3, tail, norm, head; body is"):
        frozen_parts(tiny, "stage4")
    with pytest.raises(ConfigError, match=r"freeze='body,head': these are all parts"):
        make_plan(TrainConfig(**SMALL, freeze="body,head"))


@pytest.mark.parametrize("amp", ["O0", "O1", "O2", "O3"])
def test_frozen_parts_keep_weights_and_statistics(amp):
    """To the last digit of float32 at O2 also, where the network itself holds half-precision weights."""
    trainer = make(amp=amp, freeze="stem,stage1,norm", ema=0.5, weight_decay=0.1)
    given = make().model.state_dict()  # the same seed
    take_steps(trainer)
    after = full(trainer) | trainer.train_step.average
    half = trainer.device.half_dtype if amp == "O3" else torch.float32  # of the statistics at O3
    for part, module in network_parts(trainer.model).items():
        prefix = next(name for name, other in trainer.model.named_modules() if other is module)
        names = [name for name in given if name.startswith(prefix + ".") and given[name].is_floating_point()]
        stays = part in ("stem", "stage1", "norm")
        assert names and all(torch.equal(after[name].to(half), given[name].to(half)) == stays for name in names), part
    assert not any(m.training for m in trainer.model.stages.stage1.modules()) and trainer.model.stages.stage2.training


def test_a_frozen_body_costs_no_backward():
    trainer = make(freeze="body")
    seen = []
    trainer.model.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output.requires_grad))
    take_steps(trainer)
    assert set(seen) == {False} and trainer.model.fc.weight.requires_grad


def test_lower_parts_learn_more_slowly():
    """The first step of a part is layer_decay times as long as it would be one part higher."""
    moved = {}
    for decay in (1.0, 0.5):
        trainer = make(layer_decay=decay, no_bias_decay=True)
        trainer.model.double()  # small moves of large numbers
        trainer.train_step.precision.input_dtype = torch.float64
        before = full(trainer)
        trainer.train_step(next(trainer.train_batches.epoch(0)), 0.05)
        after = full(trainer)
        names = dict(trainer.model.named_parameters())
        moved[decay] = {name: (after[name] - before[name]).norm().item() for name in names}
    factors = rate_factors(trainer.model, 0.5)
    assert factors["fc.bias"] == 1 and factors["norm.bias"] == 0.5 and factors["stem.0.weight"] == 0.5**6
    for name, factor in factors.items():
        assert moved[0.5][name] == pytest.approx(factor * moved[1.0][name], rel=1e-6), name


@pytest.mark.parametrize("amp", ["O0", "O2"])
def test_a_state_goes_on_bit_for_bit(amp):
    changes = {"amp": amp, "freeze": "stem,stage2", "layer_decay": 0.7, "no_bias_decay": True, "ema": 0.9}
    trainer = make(**changes)
    steps = list(trainer.train_batches.epoch(0))
    for micro in steps[:2]:
        trainer.train_step(micro, 0.05)
    state = copy.deepcopy(trainer.train_step.state())
    other = make(**changes, seed=1)
    other.train_step.load_state(state)
    for micro in steps[2:]:
        trainer.train_step(micro, 0.05)
        other.train_step(micro, 0.05)
    ours, theirs = full(trainer) | trainer.train_step.average, full(other) | other.train_step.average
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(state["training"]["fc.weight"], ours["fc.weight"]), "it went on"
