"""Steps that are recorded and replayed: the same training; recorded anew where a step becomes another one.

No device here records steps, so a CPU plays one: what it records runs when it is replayed, on the tensors it was
recorded with, as a graph's kernels do.
"""

from __future__ import annotations

import contextlib

import pytest
import torch

import attnet
from attnet.base.device import Cpu, Gpu
from attnet.engine.plan import make_plan
from attnet.engine.step import WARM_UP
from attnet.engine.training import Training

SMALL = {"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "train_images": 24, "test_images": 10}
SMALL |= {"train_batch_size": 4, "total_epochs": 2, "progress": "none", "device_type": "CPU", "amp": "O0", "lr": 0.02}


@pytest.fixture
def recordings(monkeypatch):
    """How often something was recorded."""
    made = []

    def recorded(_device, step):
        made.append(step)
        return step

    monkeypatch.setattr(Cpu, "records_steps", True)
    monkeypatch.setattr(Cpu, "recorded", recorded)
    return made


def train(**changes):
    training = Training(make_plan(attnet.TrainConfig(**SMALL | changes)))
    losses = []
    while training.epoch < training.config.total_epochs:
        training.train_step.train()
        losses += [training.advance(batches).item() for batches in training.train_batches.epoch(training.epoch)]
        training.next_epoch()
    return training, losses


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9, "normalize": True, "label_smoothing": 0.1},
        {"accumulate": 2},
        {"amp": "O2", "layer_decay": 0.5, "total_epochs": 1},
    ],
    ids=["seed", "average", "accumulate", "O2"],
)
def test_a_replayed_training_is_the_training(recordings, changes):
    plain, wanted = train(compile="off", **changes)
    replayed, losses = train(compile="graphs", **changes)
    assert len(recordings) == 1 and plain.plan.config.compile == "off"
    assert losses == pytest.approx(wanted, rel=1e-3)
    for name, value in plain.train_step.weights().items():
        assert torch.allclose(value.float(), replayed.train_step.weights()[name].float(), atol=5e-3), name


@pytest.mark.parametrize(
    ("changes", "kinds"), [({"image_sizes": "16,32"}, 2), ({"mixup": 0.3, "mixup_off_epochs": 1}, 2)]
)
def test_another_kind_of_step_is_recorded_anew(recordings, changes, kinds):
    _, wanted = train(compile="off", **changes)
    _, losses = train(compile="graphs", **changes)
    assert len(recordings) == kinds
    assert losses == pytest.approx(wanted, rel=1e-3)


def test_every_step_has_its_own_images_and_rate(recordings):
    """A replay reads what it was recorded with: both must be brought there."""
    training, _ = train(compile="graphs", total_epochs=1)
    kept = training.train_step.take.inputs[0].images.clone()
    [batches] = [next(training.train_batches.epoch(1))]
    training.train_step(batches, 0.0)
    assert not torch.equal(training.train_step.take.inputs[0].images, kept)
    before = {name: value.clone() for name, value in training.model.named_parameters()}
    training.train_step(batches, 0.0)
    assert all(torch.equal(value, before[name]) for name, value in training.model.named_parameters())
    training.train_step(batches, 0.1)
    assert not all(torch.equal(value, before[name]) for name, value in training.model.named_parameters())


def test_a_state_is_taken_in_between_and_holds_plain_rates(recordings):
    training, _ = train(compile="graphs", total_epochs=1)
    state = training.state()
    assert all(type(group["lr"]) is float for group in state["precision"]["optimizer"]["param_groups"])
    training.load_state(state)
    recorded = len(recordings)
    for batches in [*training.train_batches.epoch(1)][: WARM_UP + 1]:
        training.train_step(batches, 0.01)
    assert len(recordings) == recorded + 1  # the optimiser's tensors are others


def test_where_no_steps_are_recorded_the_plan_says_so():
    plan = make_plan(attnet.TrainConfig(**SMALL, compile="graphs"))
    assert plan.config.compile == "off"
    assert "compile off: CPUs record no steps as graphs" in plan.choices
    with pytest.raises(NotImplementedError):
        plan.device.recorded(lambda: torch.zeros(()))


def test_steps_of_several_cards_are_not_recorded(recordings):
    plan = make_plan(attnet.TrainConfig(**SMALL, compile="graphs", device_num=2))
    assert plan.config.compile == "off"
    assert "compile off: steps of several cards are not recorded as graphs" in plan.choices


def test_a_gpu_records_once_and_replays(monkeypatch):
    """In the order that CUDA asks for: tried on a queue of its own, recorded, replayed."""
    events = []

    class Graph:
        def replay(self):
            events.append("replay")

    class Queue:
        def wait_stream(self, other):
            events.append("wait")

    @contextlib.contextmanager
    def noted(name):
        events.append(f"{name} begins")
        yield
        events.append(f"{name} ends")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph: noted("recording"))
    monkeypatch.setattr(torch.cuda, "Stream", Queue)
    monkeypatch.setattr(torch.cuda, "current_stream", Queue)
    monkeypatch.setattr(torch.cuda, "stream", lambda queue: noted("aside"))
    device = Gpu(0)
    with device.aside():
        events.append("tried")
    loss = torch.ones(())
    replay = device.recorded(lambda: loss)
    assert replay() is loss and replay() is loss
    assert events[:5] == ["wait", "aside begins", "tried", "aside ends", "wait"]
    assert events[5:] == ["recording begins", "recording ends", "replay", "replay"]
    assert device.usual_compile == "graphs" and Cpu().usual_compile == "off"
