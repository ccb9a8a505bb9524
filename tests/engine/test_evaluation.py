"""Figures of an evaluation on hand-made logits, and running one."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import attnet
from attnet.base import host
from attnet.base.errors import WeightsError
from attnet.data.batches import TestBatches
from attnet.data.splits import Split
from attnet.engine.evaluation import Evaluation, evaluate, evaluate_weights
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import plan_evaluation
from attnet.engine.result import Result

CLASSES = ("cat", "dog", "frog")


def make_evaluation(outputs: int = 3) -> Evaluation:
    """Five images: cats taken for a cat, a dog; dogs for a dog, a cat (very sure); one more cat for a cat."""
    logits = torch.zeros(5, outputs)
    for row, (guess, sureness) in enumerate([(0, 5.0), (1, 2.0), (1, 1.0), (0, 9.0), (0, 3.0)]):
        logits[row, guess] = sureness
    return Evaluation(logits, torch.tensor([0, 0, 1, 1, 0]), CLASSES)


def test_figures_of_hand_made_logits():
    evaluation = make_evaluation()
    assert evaluation.predictions.tolist() == [0, 1, 1, 0, 0]
    assert evaluation.top1 == pytest.approx(60)
    assert evaluation.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert evaluation.per_class["cat"] == pytest.approx(200 / 3)
    assert evaluation.per_class["dog"] == pytest.approx(50)
    assert evaluation.per_class["frog"] is None  # there is none
    # -log softmax, by hand: two zeros and one logit s, at the true class or not.
    right = [-math.log(math.exp(s) / (math.exp(s) + 2)) for s in (5, 1, 3)]
    wrong = [-math.log(1 / (math.exp(s) + 2)) for s in (2, 9)]
    assert evaluation.loss == pytest.approx(sum(right + wrong) / 5, rel=1e-6)


def test_mistakes_are_the_wrong_ones_surest_first():
    evaluation = make_evaluation()
    assert evaluation.mistakes(1).tolist() == [3]
    assert evaluation.mistakes(10).tolist() == [3, 1]
    assert Evaluation(evaluation.logits, evaluation.predictions, CLASSES).mistakes(3).tolist() == []


def test_more_outputs_than_classes():
    """A network for 100 classes on a set of 3: guesses beyond them are mistakes like any other."""
    evaluation = make_evaluation(outputs=7)
    evaluation.logits[0, 6] = 20
    assert evaluation.confusion[0].tolist() == [1, 1, 0, 0, 0, 0, 1]
    assert evaluation.per_class["cat"] == pytest.approx(100 / 3)
    assert evaluation.mistakes(1).tolist() == [0]


class Halves(nn.Module):
    """Logits that name the brighter half of the image; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.seen: list[tuple] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((self.training, torch.is_grad_enabled(), images.dtype))
        return images.float().mean(1).unflatten(2, (2, 4)).mean((1, 3))


def make_split() -> Split:
    images = torch.zeros(10, 3, 8, 8, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 0, 1])
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, :, 4 * label : 4 * label + 4] = 200
    labels[3] = 1  # one wrong label
    return Split(images, labels)


def test_evaluate_runs_the_network_over_the_whole_set_in_order():
    model = Halves()
    evaluation = evaluate(
        model, TestBatches(make_split(), 4, torch.device("cpu")), ("left", "right"), input_dtype=torch.float16
    )
    assert evaluation.top1 == pytest.approx(90)
    assert evaluation.mistakes(5).tolist() == [3]
    assert evaluation.classes == ("left", "right")
    assert evaluation.logits.dtype == torch.float32
    assert model.seen == 3 * [(False, False, torch.float16)]


@pytest.mark.parametrize("fails", [False, True])
def test_evaluate_puts_the_mode_of_every_part_back(fails):
    """Fine-tuning keeps the batch norms of a training network in evaluation mode: they must stay so."""
    model = Halves()
    model.norm.eval()
    if fails:
        model.forward = None
        with pytest.raises(TypeError):
            evaluate(model, TestBatches(make_split(), 4, torch.device("cpu")), CLASSES[:2])
    else:
        evaluate(model, TestBatches(make_split(), 4, torch.device("cpu")), CLASSES[:2])
    assert (model.training, model.norm.training) == (True, False)


def test_results_do_not_depend_on_the_batch_size():
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny")
    model(torch.rand(8, 3, 16, 16))  # running statistics that are not the initial ones
    split = Split(torch.randint(0, 256, (13, 3, 16, 16), dtype=torch.uint8), torch.randint(0, 10, (13,)))
    classes = tuple("abcdefghij")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    results = [evaluate(model, TestBatches(split, size, torch.device("cpu")), classes) for size in (1, 5, 13)]
    for other in results[1:]:
        torch.testing.assert_close(other.logits, results[0].logits, rtol=1e-4, atol=1e-5)
        assert torch.equal(other.labels, split.labels)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# ---- evaluation sees what training saw ----


@pytest.fixture(scope="module")
def unusual(tmp_path_factory) -> Result:
    """A run with everything that decides what a network is shown and what its outputs mean."""
    config = TrainConfig(
        **{"recipe": "fast94", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU", "progress": "none"},
        **{"model": "attention56_tiny", "combine": "naive", "t": 1},
        **{"classes": "moon,ring,star,disc", "num_classes": 6, "label_noise": 0.1, "noise_seed": 3},
        **{"train_images": 96, "test_images": 0, "train_batch_size": 8, "total_epochs": 2, "lr": 0.05, "lr_batch": 0},
        output_dir=str(tmp_path_factory.mktemp("unusual") / "run"),
    )
    return attnet.fit(config)


@pytest.mark.parametrize("file", ["best.pt", "last.pt"])
def test_every_way_to_evaluate_gives_the_runs_own_top1(unusual, file, tmp_path):
    weights: Path = unusual.output_dir / file
    expected = unusual.top1 if file == "best.pt" else unusual.last_top1
    assert sum(any(guesses) for guesses in zip(*unusual.confusion, strict=True)) > 1, "it tells images apart"

    asked = {"device_type": "CPU", "pretrained": str(weights)}
    alone = attnet.fit(TrainConfig(**asked, is_train=False, progress="none", output_dir=str(tmp_path / "alone")))
    assert (alone.top1, alone.images["test"], alone.amp) == (expected, 200, "O0")
    assert list(alone.per_class) == list(unusual.per_class) == ["moon", "ring", "star", "disc"]
    assert alone.memorisation is None and alone.weights == weights

    plan = plan_evaluation(TrainConfig(**asked))
    seen = evaluate_weights(plan)
    assert seen.top1 == evaluate_weights(plan, weights).top1 == expected
    assert (plan.config.num_classes, plan.config.recipe, plan.colour is not None) == (6, "fast94", True)

    network = attnet.load_pretrained(weights)
    assert network.top1 == (expected if file == "best.pt" else None)
    data = attnet.load_dataset(None, network.dataset).of_classes(network.config["classes"])
    looked = evaluate(network.model, TestBatches(data.test, 500, torch.device("cpu")), network.classes)
    assert looked.top1 == expected and network.classes == ("moon", "ring", "star", "disc", "class 4", "class 5")
    if file == "last.pt":
        assert seen.top1_flip == alone.top1_flip == unusual.top1_flip
        losses = [alone.test_loss, seen.loss, looked.loss]
        assert losses == pytest.approx([unusual.test_loss] * 3, rel=1e-4)


@pytest.mark.parametrize("amp", ["O1", "O2", "O3"])
def test_half_precision_is_tested_in_half_precision_at_every_door(tmp_path, monkeypatch, amp):
    monkeypatch.setattr(host, "native_bfloat16", lambda: "as if")
    asked = {"dataset": "shapes", "mode": "rehearsal", "device_type": "CPU", "progress": "none"}
    few = {"train_images": 8, "test_images": 10, "train_batch_size": 4, "total_epochs": 1, "lr": 0.05}
    run = attnet.fit(TrainConfig(**asked, **few, amp=amp, output_dir=str(tmp_path / "run")))
    weights = {"pretrained": str(run.output_dir), "test_images": 10, "device_type": "CPU"}
    alone = attnet.fit(TrainConfig(**weights, is_train=False, progress="none", output_dir=str(tmp_path / "alone")))
    seen = evaluate_weights(plan_evaluation(TrainConfig(**weights)))
    assert alone.amp == amp and alone.test_loss == seen.loss == run.test_loss
    full = evaluate_weights(plan_evaluation(TrainConfig(**weights, amp="O0")))
    assert full.loss != seen.loss and full.loss == pytest.approx(seen.loss, rel=0.02)


@pytest.mark.parametrize(
    ("value", "name", "message"),
    [
        (
            float("nan"),
            "stages.stage1.attention.0.mask.head.conv2.weight",
            r"bad\.pt: stages\.stage1\.attention\.0\.mask\.head\.conv2\.weight holds values that are no finite",
        ),
        (
            3e38,
            "fc.weight",
            r"bad\.pt: the logits of 10 of 10 images .*\(all weights are finite: values overflow on the way\)",
        ),
    ],
)
def test_weights_that_say_nothing_are_an_error_at_every_door(value, name, message, tmp_path):
    network = attnet.build_model("attention56_tiny")
    network.get_parameter(name).data[0] = value
    torch.save({"model": network.state_dict()}, tmp_path / "bad.pt")
    few = {"dataset": "shapes", "model": "attention56_tiny", "test_images": 10, "device_type": "CPU", "amp": "O0"}
    config = TrainConfig(pretrained=str(tmp_path / "bad.pt"), output_dir=str(tmp_path / "run"), progress="none", **few)
    with pytest.raises(WeightsError, match=message):
        evaluate_weights(plan_evaluation(config))
    with pytest.raises(WeightsError, match=message):
        attnet.fit(config.replace(is_train=False))
    assert not (tmp_path / "run" / "result.json").exists()
