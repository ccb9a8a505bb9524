"""From a configuration to decisions: what is chosen, why, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import attnet
from attnet.base import apex
from attnet.base.device import KINDS
from attnet.base.errors import ConfigError, DataError
from attnet.engine import plan as planning
from attnet.engine import recipes as choices
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan
from attnet.model.options import OPTIONS

TINY = {"device_type": "CPU", "dataset": "shapes", "train_images": 64, "test_images": 50, "train_batch_size": 16}


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Path:
    """A CIFAR-10 folder of full size whose training images are all alike."""
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-py"
    folder.mkdir()
    batch = {b"data": np.full((10_000, 3072), 7, np.uint8), b"labels": [i % 10 for i in range(10_000)]}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch))
    for name in ("data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        os.link(folder / "data_batch_1", folder / name)
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [f"class {i}" for i in range(10)]}))
    return folder


@pytest.fixture(scope="module")
def cifar100(tmp_path_factory) -> Path:
    """A CIFAR-100 folder of full size: 100 classes in turn, five in a row to a superclass."""
    folder = tmp_path_factory.mktemp("data") / "cifar-100-python"
    folder.mkdir()
    for name, rows in (("train", 50_000), ("test", 10_000)):
        labels = {b"fine_labels": [i % 100 for i in range(rows)], b"coarse_labels": [i % 100 // 5 for i in range(rows)]}
        (folder / name).write_bytes(pickle.dumps({b"data": np.full((rows, 3072), 7, np.uint8)} | labels))
    fine, coarse = [f"fine_{i}" for i in range(100)], [f"coarse_{i}" for i in range(20)]
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": fine, b"coarse_label_names": coarse}))
    return folder


@pytest.fixture
def no_data(tmp_path, monkeypatch) -> Path:
    """A repository without any data: where the default data_path points to."""
    for module in (planning, choices):
        monkeypatch.setattr(module, "resolve_path", lambda path: tmp_path / path)
    return tmp_path / "data" / "cifar-10-batches-py"


@pytest.fixture
def gpus(monkeypatch) -> None:
    """A machine with cards, as far as planning can tell."""
    monkeypatch.setattr(planning.devices, "choose", lambda device_type, device_id: KINDS["GPU"](device_id))


def chosen(plan: Plan, *names: str) -> tuple:
    return tuple(getattr(plan.config, name) for name in names)


# ---- what auto chooses, and why ----


def test_without_accelerator_and_data_it_is_a_rehearsal_on_shapes(no_data):
    plan = make_plan(TrainConfig(device_type="CPU"))
    assert chosen(plan, "mode", "dataset", "model") == ("rehearsal", "shapes", "attention56_tiny")
    assert chosen(plan, "amp", "device_type", "num_classes") == ("O0", "CPU", 10)
    assert (len(plan.dataset.train), len(plan.dataset.test)) == (2000, 500)
    assert plan.dataset_label == "shapes, 2,000 images"
    mode, data, amp = plan.choices
    assert "mode rehearsal" in mode and "no accelerator" in mode and "mode=full" in mode
    assert "shapes" in data and "no CIFAR-10" in data and str(no_data) in data
    decided = {name: value for name, value in plan.config.to_dict().items() if name not in ("progress", *OPTIONS)}
    assert {None, "auto"}.isdisjoint(decided.values())
    assert "amp O0" in amp and "bfloat16" in amp
    assert plan.describe().splitlines()[:3] == [mode, data, amp]


def test_a_cpu_with_bfloat16_trains_and_tests_in_it(no_data, monkeypatch, tmp_path):
    monkeypatch.setattr(planning.devices.host, "native_bfloat16", lambda: "avx512_bf16")
    plan = make_plan(TrainConfig(device_type="CPU"))
    assert plan.config.amp == "O2" and "amp O2 since this processor computes bfloat16 (avx512_bf16)" in plan.choices
    assert "precision: O2 with bfloat16, loss scale 128.0" in plan.describe().splitlines()
    assert make_plan(TrainConfig(device_type="CPU", amp="O0")).config.amp == "O0"


@pytest.mark.parametrize(
    ("recorded", "native", "taken"),
    [("O0", "avx512_bf16", "O0"), ("O2", "avx512_bf16", "O2"), ("O2", "", "O0"), ("O1", "", "O0")],
)
def test_weights_are_evaluated_at_their_own_opt_level_where_it_pays(tmp_path, monkeypatch, recorded, native, taken):
    monkeypatch.setattr(planning.devices.host, "native_bfloat16", lambda: native)
    config = {"model": "attention56_tiny", "dataset": "shapes", "amp": recorded}
    model = attnet.build_model("attention56_tiny")
    torch.save({"model": model.state_dict(), "config": config}, tmp_path / "w.pt")
    asked = TrainConfig(device_type="CPU", is_train=False, pretrained=str(tmp_path / "w.pt"))
    assert make_plan(asked).config.amp == taken
    assert make_plan(asked.replace(amp="O3")).config.amp == "O3"


def test_a_quick_training_has_a_way_of_its_own(cifar):
    """What a processor of two cores of today takes about a quarter of an hour for."""
    asked = TrainConfig(device_type="CPU", mode="quick", data_path=cifar)
    plan = make_plan(asked)
    assert chosen(plan, "model", "schedule", "dataset") == ("attention56_tiny", "onecycle", "cifar10")
    assert len(plan.dataset.train) * plan.config.total_epochs == 400_000 and len(plan.dataset.test) == 10_000
    assert {name: getattr(plan.config, name) for name in choices.SHORT["quick"]} == choices.SHORT["quick"]
    assert plan.config.image_sizes == "16,24,32" and "training: recipe of mode quick, 8 epochs" in plan.describe()
    shorter = make_plan(asked.replace(total_epochs=4, cutout=5, image_sizes=""))
    assert chosen(shorter, "warmup_epochs", "cutout", "image_sizes") == (
        choices.SHORT["quick"]["warmup_epochs"] / 2,
        5,
        "",
    )
    large = choices.choose_preset(asked.replace(model="attention56_224"), KINDS["CPU"](), [])
    assert large.image_sizes == "112,168,224"
    with pytest.raises(ConfigError, match="model='attention57' is unknown"):
        make_plan(asked.replace(model="attention57"))


def test_a_recipe_that_is_asked_for_wins_over_the_way_of_mode_quick(cifar):
    strong = make_plan(TrainConfig(device_type="CPU", mode="quick", data_path=cifar, recipe="best"))
    wanted = ("cosine", 8, 0, 16, "", 8 / 50)
    names = ("schedule", "total_epochs", "mixup_off_epochs", "cutout", "image_sizes", "warmup_epochs")
    assert chosen(strong, *names) == wanted and "training: recipe best, 8 epochs" in strong.describe()


def test_mode_quick_is_offered_where_there_are_images(cifar):
    with pytest.raises(DataError):
        make_plan(TrainConfig(device_type="CPU", mode="quick", data_path=cifar.parent / "nothing"))
    auto = make_plan(TrainConfig(device_type="CPU", data_path=cifar))
    assert "mode=quick trains a small one on it in about a quarter of an hour" in auto.choices[0]


def test_a_rehearsal_takes_a_subset_of_cifar_that_is_there(cifar):
    plan = make_plan(TrainConfig(device_type="CPU", data_path=cifar.parent))
    assert chosen(plan, "mode", "dataset", "train_images", "test_images") == ("rehearsal", "cifar10", 2000, 500)
    assert plan.dataset_label == "cifar10, 2,000 of 50,000 images"
    assert plan.dataset.train.labels.bincount().tolist() == [200] * 10
    text = "\n".join(plan.choices)
    assert "train_images=0 takes all" in text
    assert "differ from the originals" in text  # a warning that must not get lost


def test_an_accelerator_with_cifar_trains_in_full(cifar, gpus):
    plan = make_plan(TrainConfig(data_path=cifar, device_id=1))
    assert chosen(plan, "mode", "dataset", "model") == ("full", "cifar10", "attention92")
    assert chosen(plan, "total_epochs", "train_batch_size", "train_images", "amp") == (300, 512, 0, "O2")
    assert plan.device == KINDS["GPU"](1)
    assert (len(plan.dataset.train), len(plan.dataset.test)) == (50_000, 10_000)
    assert "mode full" in plan.choices[0] and "cifar10" in plan.choices[0]


def test_an_accelerator_without_data_rehearses(no_data, gpus):
    plan = make_plan(TrainConfig())
    assert chosen(plan, "mode", "dataset") == ("rehearsal", "shapes")
    assert "no cifar10" in plan.choices[0] and str(no_data) in plan.choices[0]


@pytest.mark.parametrize("cards, epochs", [(1, 1), (8, 3)])
def test_performance_mode_is_the_documents(gpus, cards, epochs):
    plan = make_plan(TrainConfig(mode="performance", dataset="shapes", device_num=cards))
    assert chosen(plan, "total_epochs", "train_batch_size", "model") == (epochs, 512, "attention92")


# ---- explicit parameters win ----


def test_explicit_parameters_win_over_mode_and_recipe():
    asked = {"model": "attention92", "total_epochs": 7, "lr": 0.0, "flip": "off", "crop_padding": 0, "amp": "O1"}
    plan = make_plan(TrainConfig(**TINY, **asked, num_classes=12))
    assert {name: getattr(plan.config, name) for name in TINY | asked} == TINY | asked
    assert (plan.config.num_classes, plan.config.momentum) == (12, 0.9)
    assert (len(plan.dataset.train), len(plan.dataset.test)) == (64, 50)
    batches = plan.train_batches()
    given = torch.cat([batch.images for [batch] in batches.epoch(0)]).flatten(1).sum(1).sort().values
    originals = (plan.dataset.train.images / 255).flatten(1).sum(1).sort().values
    assert len(batches) == 4 and torch.allclose(given, originals), "neither mirrored nor cropped"


def test_a_plan_of_a_plan_is_the_same():
    config = make_plan(TrainConfig(**TINY, normalize=True)).config
    again = make_plan(config)
    assert again.config == config
    assert again.colour is not None and len(again.dataset.train) == 64


# ---- parts of a data set ----


@pytest.mark.parametrize(("name", "count"), [("cifar100", 100), ("cifar100_coarse", 20)])
def test_cifar100_by_its_classes_and_by_its_superclasses(cifar100, name, count):
    plan = make_plan(TrainConfig(device_type="CPU", dataset=name, data_path=cifar100.parent / "cifar-10-batches-py"))
    assert chosen(plan, "mode", "dataset", "num_classes", "classes") == ("rehearsal", name, count, "")
    assert plan.dataset.train.labels.bincount().tolist() == [2000 // count] * count
    assert plan.dataset_label == f"{name}, 2,000 of 50,000 images"


@pytest.mark.slow
def test_a_run_on_classes_of_cifar100(cifar100, tmp_path):
    """Trained, opened and evaluated on two classes of a hundred, by their names, with noise."""
    asked = {"device_type": "CPU", "data_path": str(cifar100), "test_images": 40}
    config = TrainConfig(
        **asked, dataset="cifar100", classes="fine_70, fine_3", label_noise=0.25, train_images=64, train_batch_size=16,
        total_epochs=1, progress="none", output_dir=tmp_path / "run",
    )  # fmt: skip
    result = attnet.fit(config)
    assert result.dataset == "cifar100 (fine_70, fine_3), 64 of 1,000 images (label noise 25 %)"
    assert list(result.per_class) == ["fine_70", "fine_3"] and result.memorisation["images"] == 16
    opened, data = attnet.open_pretrained(result.output_dir, cifar100)
    assert (opened.classes, opened.dataset, opened.model.num_classes) == (("fine_70", "fine_3"), "cifar100", 2)
    assert data.classes == opened.classes and (len(data.train), len(data.test)) == (1000, 200)
    plan = attnet.plan_evaluation(TrainConfig(**asked, pretrained=str(result.output_dir)))
    assert chosen(plan, "dataset", "classes", "num_classes") == ("cifar100", "fine_70,fine_3", 2)
    assert plan.dataset_label == "cifar100 (fine_70, fine_3), 40 test images"
    assert attnet.evaluate_weights(plan, plan.config.pretrained).top1 == result.top1


def test_classes_go_with_subsets(cifar):
    asked = {"device_type": "CPU", "data_path": cifar, "classes": "class 3,0"}
    plan = make_plan(TrainConfig(**asked, train_images=100, test_images=0))
    assert chosen(plan, "classes", "num_classes") == ("class 3,class 0", 2)
    train = plan.dataset.train
    assert train.labels.bincount().tolist() == [50, 50]
    assert torch.equal(train.places % 10, torch.tensor([3, 0])[train.labels])
    assert len(plan.dataset.test) == 2000
    assert plan.dataset_label == "cifar10 (class 3, class 0), 100 of 10,000 images"
    many = make_plan(TrainConfig(**asked | {"classes": "5,4,3,2,1"}))
    assert many.dataset_label == "cifar10 (5 classes), 2,000 of 25,000 images"
    assert make_plan(many.config).config == many.config


# ---- refusals ----


@pytest.mark.parametrize(
    ("trained", "asked", "known"),
    [
        ("ring,disc", "1,0", ""),
        ("ring,disc", "0,1", "ring,disc"),
        ("", "ring,disc", "all classes of shapes"),
    ],
    ids=["the same", "another order", "all"],
)
def test_weights_are_evaluated_on_their_own_classes(tmp_path, trained, asked, known):
    count = len(trained.split(",")) if trained else 10
    config = {"dataset": "shapes", "model": "attention56_tiny", "num_classes": count, "classes": trained}
    state = attnet.build_model("attention56_tiny", count).state_dict()
    torch.save({"model": state, "config": config}, tmp_path / "w.pt")
    weights = TrainConfig(device_type="CPU", pretrained=tmp_path / "w.pt", classes=asked)
    if not known:
        assert attnet.plan_evaluation(weights).dataset.classes == ("ring", "disc")
        return
    with pytest.raises(ConfigError, match=f"classes={asked!r}: these weights tell apart {known}; leave classes empty"):
        attnet.plan_evaluation(weights)


@pytest.mark.parametrize("parameters", [{}, {"mode": "full"}, {"mode": "rehearsal"}, {"dataset": "cifar10"}])
def test_a_data_path_without_data_is_an_error_not_another_data_set(tmp_path, parameters):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(DataError) as error:
        make_plan(TrainConfig(device_type="CPU", data_path=tmp_path, **parameters))
    message = str(error.value)
    assert str(tmp_path) in message and "holiday.jpg" in message and "cifar-10-batches-py" in message


def test_full_mode_needs_data(no_data):
    with pytest.raises(DataError, match=r"cifar-10-batches-py does not exist.*attnet download cifar10"):
        make_plan(TrainConfig(device_type="CPU", mode="full"))


@pytest.mark.parametrize(
    "changes, kind, words",
    [
        ({"model": "resnet50"}, ConfigError, ["'resnet50'", "attention92", "attention56_tiny"]),
        ({"train_images": 2001}, DataError, ["train_images=2001", "2000"]),
        ({"test_images": 501}, DataError, ["test_images=501", "500"]),
        ({"num_classes": 9}, ConfigError, ["num_classes=9", "10 classes"]),
        ({"classes": "dics,ring"}, DataError, ["classes='dics,ring'", "did you mean 'disc'?"]),
        ({"classes": "disc,ring,moon", "num_classes": 2}, ConfigError, ["num_classes=2", "shapes", "3 classes"]),
        ({"classes": "disc,ring", "train_images": 401}, DataError, ["train_images=401", "400"]),
        ({"image_sizes": "16,24"}, ConfigError, ["image_sizes=16,24", "the last 32", "image_sizes=16,32"]),
        ({"image_sizes": "4,32"}, ConfigError, ["image_sizes=4,32", "8 to 32"]),
        ({"image_sizes": "48,32"}, ConfigError, ["image_sizes=48,32", "8 to 32"]),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, kind, words):
    with pytest.raises(kind) as error:
        make_plan(TrainConfig(**TINY | changes))
    assert [word for word in words if word not in str(error.value)] == []


@pytest.mark.parametrize("changes", [{"train_batch_size": 65}, {"train_batch_size": 16, "accumulate": 5}])
def test_a_batch_larger_than_the_set_is_refused(changes):
    with pytest.raises(ConfigError, match=rf"train_batch_size={changes['train_batch_size']}.*64 training images"):
        make_plan(TrainConfig(**TINY | changes)).train_batches()


def test_an_apex_that_does_not_fit_is_said_and_left_alone():
    plan = make_plan(TrainConfig(amp="O2", amp_backend="apex", device_type="CPU", dataset="shapes", mode="rehearsal"))
    assert plan.config.amp_backend == "native"
    assert "amp_backend native: apex runs on an NPU or a GPU, not on a device of type CPU" in plan.describe()
    assert "by apex" not in plan.describe()


def test_apex_and_compile_do_not_go_together(monkeypatch):
    monkeypatch.setattr(apex, "choose", lambda level, kind: (True, "used"))
    monkeypatch.setattr(apex, "find", lambda: apex.Apex("ascend", parts=("amp", "NpuFusedSGD")))
    asked = {"amp": "O2", "amp_backend": "apex", "dataset": "shapes", "mode": "rehearsal"}
    assert make_plan(TrainConfig(**asked)).config.amp_backend == "apex"
    with pytest.raises(ConfigError, match=r"compile=on: .*amp_backend=native"):
        make_plan(TrainConfig(**asked, compile="on"))
