"""Opening trained weights, whoever wrote them, together with the images that they know."""

import pytest
import torch
from conftest import REFERENCE, draw_weights

import attnet
from attnet.base.errors import WeightsError
from attnet.base.files.paths import resolve_path
from attnet.masks import open as opening
from attnet.masks.capture import capture
from attnet.masks.open import open_pretrained
from attnet.model import pretrained
from attnet.model.pretrained import load_pretrained
from attnet.model.weights.opened import shipped_weights

SMALL = {
    "mode": "rehearsal",
    "dataset": "shapes",
    "train_images": 16,
    "test_images": 40,
    "train_batch_size": 8,
    "total_epochs": 1,
    "progress": "none",
    "device_type": "CPU",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> attnet.Result:
    folder = tmp_path_factory.mktemp("runs") / "plain"
    return attnet.fit(attnet.TrainConfig(**SMALL, output_dir=str(folder)))


@pytest.mark.parametrize("file", ["", "best.pt", "last.pt"], ids=["folder", "best", "last"])
def test_a_run_of_ours(run, file):
    opened = load_pretrained(run.output_dir / file)
    assert opened.model.variant.name == "attention56_tiny" and opened.size == 32
    assert opened.classes[:2] == ("disc", "ring") and len(opened.classes) == 10
    assert (opened.dataset, opened.epoch, opened.config["seed"]) == ("shapes", 1, 0)
    assert not opened.model.training
    plan = attnet.plan_evaluation(attnet.TrainConfig(pretrained=str(run.output_dir), device_type="CPU"))
    split = plan.dataset.test.subset(40)
    logits = capture(opened.model, split.images).logits
    assert 100 * (logits.argmax(1) == split.labels).float().mean() == pytest.approx(run.top1)
    if file != "last.pt":
        assert opened.top1 == run.top1 and f"Top-1 {run.top1:.2f} %" in opened.describe()


def test_standardised_colours_happen_inside(tmp_path):
    config = attnet.TrainConfig(**SMALL, normalize=True, output_dir=str(tmp_path / "run"))
    result = attnet.fit(config)
    opened = load_pretrained(result.output_dir)
    split = attnet.make_plan(config).dataset.test
    logits = capture(opened.model, split.images).logits
    assert 100 * (logits.argmax(1) == split.labels).float().mean() == pytest.approx(result.top1)
    plain = attnet.build_model("attention56_tiny")
    attnet.load_weights(plain, result.output_dir / "best.pt")
    assert (capture(plain, split.images).logits - logits).abs().max() > 0.01
    content = torch.load(result.output_dir / "best.pt", weights_only=True) | {"colour": None}
    torch.save(content, tmp_path / "old.pt")
    with pytest.raises(WeightsError, match="standardised colours that the file does not record"):
        load_pretrained(tmp_path / "old.pt")


@pytest.mark.parametrize(
    "name",
    [
        "ResidualAttentionModel_92_32input_update",
        pytest.param("ResidualAttentionModel_56", marks=pytest.mark.slow),
    ],
)
def test_a_reference_checkpoint_is_recognised(reference_variants, golden, tmp_path, name):
    entries = reference_variants[name]["state_dict"]
    torch.save({f"module.{key}": value for key, value in draw_weights(entries).items()}, tmp_path / "reference.pt")
    opened = load_pretrained(tmp_path / "reference.pt", classes=["plane", "car"])
    assert opened.model.variant.name == REFERENCE[name]
    assert opened.classes == ("plane", "car", *(f"class {k}" for k in range(2, 10)))
    assert opened.top1 is None and opened.describe() == f"{REFERENCE[name]} from {tmp_path / 'reference.pt'}"


def test_weights_of_no_known_network(tmp_path):
    torch.save({"fc.weight": torch.zeros(10, 3)}, tmp_path / "foreign.pt")
    with pytest.raises(WeightsError, match=r"fit no network of attnet\.variants\(\); give its name as model="):
        load_pretrained(tmp_path / "foreign.pt")


def test_shipped_weights_open_by_name_and_say_what_they_are():
    assert set(pretrained.SHIPPED.values()) <= set(shipped_weights())
    for name, path in shipped_weights().items():
        opened = load_pretrained(name)
        assert opened.weights == name and opened.top1 > 60 and opened.dataset in ("cifar10", "shapes")
        assert path.stat().st_size < 5e6 and not any(c.startswith("class ") for c in opened.classes)


def test_the_images_are_those_the_network_knows(run, tmp_path):
    network, dataset = open_pretrained("", tmp_path)
    assert (network.weights, dataset.name) == ("attention56_shapes", "shapes")
    logits = capture(network.model, dataset.test.images[:100]).logits
    assert (logits.argmax(1) == dataset.test.labels[:100]).float().mean() > 0.9
    network, dataset = open_pretrained(run.output_dir)
    assert network.top1 == run.top1 and dataset.name == "shapes"
    with pytest.warns(UserWarning, match=r"attention56_cifar was trained on cifar10, which is not at .*: shapes inst"):
        network, dataset = open_pretrained("attention56_cifar", tmp_path)
    assert dataset.name == "shapes"


def test_weights_without_class_names_take_those_of_the_images(tmp_path):
    torch.save(attnet.build_model("attention56_tiny").state_dict(), tmp_path / "bare.pt")
    network, dataset = open_pretrained(tmp_path / "bare.pt", tmp_path)
    assert network.classes == dataset.classes and network.classes[0] == "disc"
    torch.save(attnet.build_model("attention56_tiny", 11).state_dict(), tmp_path / "eleven.pt")
    assert open_pretrained(tmp_path / "eleven.pt", tmp_path)[0].classes[-1] == "class 10"


def test_cifar_is_taken_when_it_is_there(tmp_path, monkeypatch):
    asked, real = [], attnet.load_dataset(None, "shapes")
    monkeypatch.setattr(opening, "find_dataset", lambda path, name: path if name == "cifar10" else None)
    monkeypatch.setattr(opening, "load_dataset", lambda path, name, size: asked.append((path, name)) or real)
    assert open_pretrained("", tmp_path)[0].weights == "attention56_cifar"
    assert open_pretrained()[0].weights == "attention56_cifar"
    assert asked == [(tmp_path, "cifar10"), (resolve_path("data/cifar-10-batches-py"), "cifar10")]


def test_a_network_is_trained_when_asked(tmp_path, monkeypatch):
    configs = []
    monkeypatch.setattr(
        opening,
        "fit",
        lambda config: (
            configs.append(config) or attnet.fit(config.replace(**SMALL, output_dir=str(tmp_path / "trained")))
        ),
    )
    network, dataset = open_pretrained("train")
    assert configs[0].keep_epochs == 1 and dataset.name == "shapes" and network.epoch == 1
