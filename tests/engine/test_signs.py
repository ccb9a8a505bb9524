"""What is said while a training goes wrong, and that nothing is said of one that goes well."""

import pytest
import torch
from networks import settled, tiny

import attnet
from attnet.engine.parameters import TrainConfig
from attnet.engine.signs import STUCK, dead_masks, signs


def rows(losses: list[float], top1: list[float]) -> list[dict]:
    return [{"train_loss": loss, "top1": value} for loss, value in zip(losses, top1, strict=True)]


@pytest.mark.parametrize(
    ("losses", "top1", "said"),
    [
        ([2.3] * 5, [10, 9, 10.5, 11, 10], {"stuck"}),
        ([2.3] * 4, [10, 9, 10.5, 11], set()),  # too early to say
        ([2.3] * 6, [30, 9, 10, 10, 10, 10], {"stuck"}),
        ([2.3] * 5, [10, 10, 10, 10, 13], {"stuck"}),  # four deviations of a guesser on 1,000 images are 3.8 points
        ([2.3] * 5, [10, 10, 10, 10, 14], set()),
        ([1.0, 0.5, 5.0], [50, 60, 20], {"diverging"}),
        ([0.1, 0.3], [90, 90], set()),  # ups and downs of small losses
        ([2.3, 1.5, 1.0], [20, 40, 60], set()),
    ],
)
def test_signs_in_the_epochs(losses, top1, said):
    found = dict(signs(rows(losses, top1), 10, 1000))
    assert found.keys() == said
    assert all(word in " ".join(found.values()) for word in (["chance", f"{STUCK} epochs"] if "stuck" in said else []))


@pytest.mark.parametrize(("shift", "value"), [(-9.0, 0), (9.0, 1), (0.0, None)])
def test_masks_that_select_nothing_are_named(shift, value):
    model = settled(tiny()).float()
    head = model.attention_modules()["stage2.0"].mask.head
    with torch.no_grad():
        head.conv2.weight.zero_()
        head.conv2.weight += shift
        head.norm2.weight.zero_()
        head.norm2.bias.fill_(1)
    found = dict(dead_masks(model, torch.rand(4, 3, 32, 32)))
    assert list(found) == ([] if value is None else ["stage2.0"])
    assert value is None or f"stage2.0 is {value} nearly everywhere" in found["stage2.0"]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("attention", ["channel", "none"])
def test_masks_that_are_no_sigmoids_are_left_alone(attention):
    assert dict(dead_masks(tiny(attention=attention), torch.rand(2, 3, 32, 32))) == {}


def test_a_training_says_it_once_in_log_and_result(tmp_path):
    few = {"train_images": 4, "test_images": 10, "train_batch_size": 4, "total_epochs": STUCK + 1, "lr": 0.0}
    asked = {
        "dataset": "shapes",
        "model": "attention56_tiny",
        "device_type": "CPU",
        "progress": "none",
        "image_sizes": "8,32",
    }
    result = attnet.fit(TrainConfig(**asked, **few, output_dir=str(tmp_path / "run")))
    (said,) = result.warnings
    assert said.startswith(f"epoch {STUCK}: Top-1 has been at chance")
    assert (tmp_path / "run" / "log.txt").read_text().count("warning: ") == 1
