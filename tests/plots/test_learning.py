"""The picture under a training's cell: it holds the network's own masks, and looking changes nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

import attnet
from attnet import together
from attnet.base import progress, watching
from attnet.base.watching import Sight
from attnet.together import Learning

TINY = {"device_type": "CPU", "dataset": "shapes", "model": "attention56_tiny", "amp": "O0", "total_epochs": 2}
TINY |= {"train_images": 32, "test_images": 20, "train_batch_size": 8}


def train(folder: Path) -> dict[str, torch.Tensor]:
    result = attnet.fit(attnet.TrainConfig(**TINY, output_dir=str(folder)))
    return torch.load(result.output_dir / "last.pt", weights_only=True)["model"]


def test_a_training_that_is_looked_at_ends_with_the_same_weights(tmp_path, monkeypatch):
    alone = train(tmp_path / "alone")
    shown: list[Figure] = []

    def display(picture: Figure, display_id: bool) -> SimpleNamespace:
        shown.append(picture)
        return SimpleNamespace(update=shown.append)

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(progress, "somebody_looks", lambda: True)
    monkeypatch.setattr(watching, "FIRST", 0.0)
    monkeypatch.setattr(watching, "SHARE", 1.0)  # after every step
    drawn = []
    monkeypatch.setattr(together.Learning, "picture", lambda self, sight: drawn.append(len(self.glimpses.maps)))
    looked_at = train(tmp_path / "looked_at")
    assert sorted(set(drawn)) == list(range(2, 10)), "the untrained one, and one a step"
    assert all(torch.equal(alone[name], looked_at[name]) for name in alone)


def test_the_masks_are_the_networks_own_as_it_stands():
    plan = attnet.make_plan(attnet.TrainConfig(**TINY))
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny").eval()
    draw = Learning(plan.config, plan)
    draw.note(Sight([], [], 0, 4, lambda: model))
    with torch.no_grad():
        model.stages.stage3.attention[0].mask.head.conv2.weight.mul_(40)
    draw.note(Sight([], [2.0, 2.0], 0, 4, lambda: model))
    assert draw.glimpses.epochs == [0, 0.5]
    expected = attnet.capture_masks(model, draw.images)["stage3.0"].amax(dim=1)[0]
    torch.testing.assert_close(draw.glimpses.maps[1], expected)
    assert (draw.chance, draw.kind) == (10, "rehearsal")
    assert isinstance(draw.picture(Sight([], [2.0, 2.0], 0, 4)), Figure)


def test_where_others_train_it_the_mask_is_that_of_the_epochs_that_are_tested():
    plan = attnet.make_plan(attnet.TrainConfig(**TINY))
    draw, saved = Learning(plan.config, plan), []
    rows = [{"epoch": epoch, "top1": 10.0, "train_loss": 2.0, "test_loss": 2.0, "lr": 0.1} for epoch in (1, 2)]
    draw.note(Sight([], [], 0, 1, lambda: saved[-1] if saved else None))
    assert draw.glimpses is None, "nothing is saved yet"
    saved.append(attnet.build_model("attention56_tiny").eval())
    draw.note(Sight(rows, [], 0, 1, lambda: saved[-1]))
    assert draw.glimpses.epochs == [2]
    assert len(draw.picture(Sight(rows, [], 0, 1)).axes) > 2


@pytest.mark.parametrize("options", [{"attention": "none"}, {}])
def test_without_masks_or_a_network_there_are_curves_alone(options):
    plan = attnet.make_plan(attnet.TrainConfig(**TINY))
    draw = Learning(plan.config, plan)
    look = (lambda: attnet.build_model("attention56_tiny", **options)) if options else None
    sight = Sight([], [2.0], 0, 4, look)
    draw.note(sight)
    assert draw.glimpses is None
    assert len(draw.picture(sight).axes) == 2
