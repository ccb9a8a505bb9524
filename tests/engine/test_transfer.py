"""Going on from weights: what is taken over, when the last layer is new, and that evaluation sees the same colours."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import draw_weights

import attnet
from attnet.base.errors import ConfigError, WeightsError
from attnet.data.batches import Colour
from attnet.data.shapes import KINDS
from attnet.engine import run_folder as checkpoint
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan, plan_evaluation
from attnet.engine.transfer import from_scratch

SMALL = {"dataset": "shapes", "mode": "rehearsal", "train_images": 32, "test_images": 10, "train_batch_size": 8}
SMALL |= {"device_type": "CPU", "progress": "none"}
NAMES = [kind.name for kind in KINDS]
COLOUR = Colour((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def write(path: Path, classes: list[str] | None = NAMES, outputs: int = 10, **recorded: object) -> Path:
    """A checkpoint of ours: tiny, with spatial masks."""
    torch.manual_seed(7)
    model = attnet.build_model("attention56_tiny", outputs, attention="spatial")
    config = {"model": "attention56_tiny", "attention": "spatial", "normalize": True, **recorded}
    content = {"model": model.state_dict(), "config": config, "colour": dataclasses.asdict(COLOUR)}
    torch.save(content | ({"classes": classes} if classes else {}), path)
    return path


def plan(path: Path, **changes: object) -> Plan:
    return make_plan(TrainConfig(**{**SMALL, "is_pretrain": True, "pretrained": str(path), **changes}))


def test_network_and_colours_are_those_of_the_weights(tmp_path):
    path = write(tmp_path / "best.pt")
    made = plan(path)
    assert (made.config.model, made.config.attention, made.config.normalize) == ("attention56_tiny", "spatial", True)
    assert made.colour == COLOUR
    assert made.choices[0] == f"model attention56_tiny, normalize True, attention spatial: those of {path}"
    given = plan(path, normalize=False, attention="spatial", model="attention56_tiny")
    assert given.colour is None and not given.choices[0].startswith("model")
    with pytest.raises(WeightsError, match="do not fit attention56_cifar"):
        Trainer(plan(path, model="attention56_cifar"))


@pytest.mark.parametrize(
    ("file", "changes", "is_new", "why"),
    [
        ({}, {}, False, "head kept: W has the same classes; new_head=True begins a new one"),
        ({}, {"new_head": True}, True, "new head, as new_head=True asks for; W has 10 classes, here are 10"),
        ({}, {"num_classes": 11}, True, "new head: 11 classes in place of the 10 of W"),
        ({}, {"classes": "star,moon"}, True, "new head: 2 classes in place of the 10 of W"),
        (
            {"classes": NAMES[::-1]},
            {},
            True,
            "new head: disc, ring, square … in place of twins, bow, moon … of W; new_head=False keeps the old one",
        ),
        (
            {"classes": NAMES[::-1]},
            {"new_head": False},
            False,
            "head kept, as new_head=False asks for; W has 10 classes, here are 10",
        ),
        (
            {"classes": None},
            {},
            False,
            "head kept: W has as many classes, which its file does not name; new_head=True begins a new one",
        ),
    ],
    ids=["same", "asked", "more", "fewer", "others", "others-kept", "unnamed"],
)
def test_the_last_layer_is_new_where_classes_are_others(file, changes, is_new, why, tmp_path):
    path = write(tmp_path / "best.pt", **file)
    made = plan(path, **changes)
    assert made.config.new_head is is_new
    assert made.choices[-1].replace(str(path), "W") == why
    network, state = Trainer(made).model, torch.load(path, weights_only=True)["model"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]) != (is_new and name.startswith("fc.")), name


def test_a_head_that_must_stay_and_cannot_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match="only the last layer differs: new_head=True loads all the others"):
        Trainer(plan(write(tmp_path / "best.pt"), num_classes=11, new_head=False))


def test_a_reference_checkpoint_gets_a_new_head(reference_variants, tmp_path):
    state = draw_weights(reference_variants["ResidualAttentionModel_92_32input_update"]["state_dict"])
    torch.save({"module." + name: value for name, value in state.items()}, tmp_path / "reference.pkl")
    made = plan(tmp_path / "reference.pkl", num_classes=11)
    assert made.config.model == "attention92" and made.config.new_head
    model = attnet.build_model("attention92", 11)
    fresh = model.fc.weight.detach().clone()
    report = attnet.load_weights(model, tmp_path / "reference.pkl", new_head=True)
    assert {"fc.weight", "fc.bias"} <= set(report.dropped) and report.loaded == len(model.state_dict()) - 2
    assert torch.equal(model.fc.weight, fresh) and torch.equal(model.stem[0].weight, state["conv1.0.weight"])


def test_evaluation_sees_the_colours_of_training(tmp_path):
    """Weights that were fine-tuned have been trained with the colours of those before them."""
    path = write(tmp_path / "best.pt", dataset="shapes")
    assert plan_evaluation(TrainConfig(pretrained=str(path), device_type="CPU")).colour == COLOUR


def test_going_on_keeps_what_learns():
    """What is frozen decides the result; the weights are in the checkpoint, so that the head does not matter."""
    with pytest.raises(ConfigError, match=r"freeze='' .was 'stem'"):
        checkpoint.check_same_run(TrainConfig(freeze="stem"), TrainConfig())
    with pytest.raises(ConfigError, match=r"layer_decay=1\.0 .was 0\.5"):
        checkpoint.check_same_run(TrainConfig(layer_decay=0.5), TrainConfig())
    checkpoint.check_same_run(TrainConfig(new_head=True), TrainConfig(new_head=False))


def test_from_scratch_is_the_same_training_without_the_weights(tmp_path):
    given = {"freeze": "body", "layer_decay": 0.5, "lr": 0.01, "total_epochs": 3}
    tuned = plan(write(tmp_path / "best.pt"), **given).config
    plain = make_plan(from_scratch(tuned, "runs/scratch")).config
    changed = {name for name, value in plain.to_dict().items() if value != tuned.to_dict()[name]}
    assert changed == {"is_pretrain", "pretrained", "freeze", "layer_decay", "lr", "output_dir"}
    assert plain.lr == 0.1 and plain.attention == "spatial"
