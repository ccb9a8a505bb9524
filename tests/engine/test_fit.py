"""The loop trains as the document's code does, records what it did, and refuses to lose or spoil anything."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

import attnet
from attnet.base.errors import AttnetError, ConfigError, WeightsError
from attnet.base.processes import StopSignal
from attnet.base.progress import Progress
from attnet.data.batches import Batch
from attnet.engine import loop as trainer_module
from attnet.engine import schedule as recipe
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan
from attnet.engine.run_folder import RunFolder, epoch_files
from attnet.engine.step import TrainStep
from attnet.model.weights import read_weights

# A run of a few seconds on one core.
SMALL = {
    "model": "attention56_tiny",
    "dataset": "shapes",
    "mode": "rehearsal",
    "train_images": 128,
    "test_images": 50,
    "train_batch_size": 16,
    "total_epochs": 2,
    "progress": "none",
    "device_type": "CPU",
}


def trainer_for(tmp_path, **changes: object) -> trainer_module.Trainer:
    plan = make_plan(TrainConfig(**{**SMALL, **changes}))
    trainer = trainer_module.Trainer(plan)
    trainer.folder, trainer.progress = RunFolder(tmp_path), Progress(lambda line: None)
    return trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> attnet.Result:
    folder = tmp_path_factory.mktemp("runs") / "small"
    return attnet.fit(TrainConfig(**SMALL, output_dir=str(folder)))


def test_run_folder(finished):
    folder = finished.output_dir
    assert {"config.json", "metrics.jsonl", "last.pt", "best.pt", "log.txt", "result.json"} <= {
        p.name for p in folder.iterdir()
    }
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    keys = {"epoch", "lr", "train_loss", "test_loss", "top1", "fps", "seconds"}
    assert all(set(row) == keys and all(math.isfinite(row[k]) for k in keys) for row in rows)
    stored = json.loads((folder / "result.json").read_text())
    required = {"top1", "fps", "epochs", "amp", "device", "batch_size", "model", "dataset", "environment"}
    assert required <= set(stored)
    assert stored["dataset"].startswith("shapes") and stored["device"] == "cpu_1p" and stored["epochs"] == 2
    assert stored["top1"] == max(row["top1"] for row in rows)
    assert TrainConfig.load(folder / "config.json").total_epochs == 2
    assert len((folder / "log.txt").read_text().splitlines()) >= 6


def test_best_weights_give_the_reported_top1(finished):
    plan = make_plan(TrainConfig(**SMALL))
    assert attnet.evaluate_weights(plan, finished.weights).top1 == pytest.approx(finished.top1)
    last = torch.load(finished.output_dir / "last.pt", weights_only=True)
    assert set(last["model"]) == set(attnet.build_model("attention56_tiny").state_dict())


def test_a_second_run_gets_its_own_folder(finished):
    before = (finished.output_dir / "result.json").read_bytes()
    again = attnet.fit(TrainConfig(**{**SMALL, "total_epochs": 1}, output_dir=str(finished.output_dir)))
    assert again.output_dir.name == "small-2"
    assert (finished.output_dir / "result.json").read_bytes() == before


def test_evaluation_only(finished, tmp_path):
    weights = str(finished.output_dir / "best.pt")
    result = attnet.fit(TrainConfig(**SMALL, is_train=False, pretrained=weights, output_dir=str(tmp_path / "e")))
    assert result.top1 == pytest.approx(finished.top1)
    assert (result.fps, result.epochs, result.history) == (None, 0, [])
    assert str(result.weights) == weights


def test_weights_are_kept_along_the_way(tmp_path):
    result = attnet.fit(TrainConfig(**SMALL, keep_epochs=2, output_dir=str(tmp_path / "kept")))
    kept = epoch_files(str(result.output_dir))
    assert [path.name for path in kept] == ["epoch_000.pt", "epoch_002.pt"]
    untrained, trained = (read_weights(path) for path in kept)
    last = read_weights(result.output_dir / "last.pt")
    assert all(torch.equal(trained[name], value) for name, value in last.items())
    assert not torch.equal(untrained["fc.weight"], last["fc.weight"])


def test_same_seed_same_weights_other_seed_others(tmp_path):
    def weights(name: str, seed: int) -> torch.Tensor:
        config = {**SMALL, "train_images": 48, "total_epochs": 1, "seed": seed}
        result = attnet.fit(TrainConfig(**config, output_dir=str(tmp_path / name)))
        return torch.load(result.output_dir / "last.pt", weights_only=True)["model"]["fc.weight"]

    first = weights("a", 0)
    assert torch.equal(first, weights("b", 0))
    assert not torch.equal(first, weights("c", 1))


def test_cosine_glides_from_lr_to_zero():
    config = TrainConfig(lr=0.2, lr_batch=0, warmup_epochs=0, total_epochs=4, schedule="cosine", train_batch_size=8)
    rates = [recipe.learning_rate(config, done) for done in (0, 1, 2, 3, 4)]
    half = 0.5**0.5
    assert rates == pytest.approx([0.2, 0.1 * (1 + half), 0.1, 0.1 * (1 - half), 0])


def test_one_cycle_is_two_straight_lines():
    config = TrainConfig(lr=0.2, lr_batch=0, warmup_epochs=2, total_epochs=6, schedule="onecycle", train_batch_size=8)
    rates = [recipe.learning_rate(config, done) for done in (0, 1, 2, 3, 4, 5, 6)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.15, 0.1, 0.05, 0])


def test_cosine_begins_after_the_warm_up():
    config = TrainConfig(lr=0.2, lr_batch=4, warmup_epochs=1, total_epochs=5, schedule="cosine", train_batch_size=8)
    rates = [recipe.learning_rate(config, done) for done in (0, 0.5, 1, 3, 5)]
    assert rates == pytest.approx([0.2, 0.3, 0.4, 0.2, 0])  # twice lr_batch: from lr to twice lr


def test_learning_rate_of_the_document():
    config = make_plan(TrainConfig(**{**SMALL, "total_epochs": 300})).config
    rates = [recipe.learning_rate(config, epoch) for epoch in range(300)]
    assert [rates.count(rate) for rate in sorted(set(rates), reverse=True)] == [90, 90, 90, 30]
    assert sorted(set(rates), reverse=True) == pytest.approx([0.1, 0.01, 0.001, 0.0001])
    short = config.replace(total_epochs=10)
    assert [round(math.log10(0.1 / recipe.learning_rate(short, e))) for e in range(10)] == [0] * 3 + [1] * 3 + [
        2
    ] * 3 + [3]


def test_large_batch_rises_to_its_rate_and_then_falls_as_the_documents():
    """8 x 512 images a step at 0.1 for 256: from 0.1 to 1.6 in five epochs, without a jump; then ÷ 10 as ever."""
    given = {**SMALL, "recipe": "large_batch", "total_epochs": 300, "train_batch_size": 512}
    config = make_plan(TrainConfig(**given)).config.replace(device_num=8)
    rates = [recipe.learning_rate(config, epoch) for epoch in (0, 2.5, 4.999, 5, 89.9, 90, 299)]
    assert rates == pytest.approx([0.1, 0.85, 1.6, 1.6, 1.6, 0.16, 0.0016], rel=1e-3)
    assert recipe.learning_rate(config.replace(device_num=1, accumulate=8), 10) == pytest.approx(1.6)


def test_recipe_seed_against_a_plain_loop(tmp_path):
    """Five steps equal those of the document's loop, written down again without our engine.

    In double precision, since at lr 0.1 the rounding of float32 grows tenfold from step to step.
    """
    trainer = trainer_for(tmp_path)
    trainer.model.double()
    trainer.train_step.precision.input_dtype = torch.float64
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny").double()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    trainer.model.train()
    for _, [batch] in zip(range(5), trainer.train_batches.epoch(0), strict=False):
        ours = trainer.train_step([batch], 0.1)
        sgd.zero_grad()
        loss = F.cross_entropy(model(batch.images.double().contiguous()), batch.labels)
        loss.backward()
        sgd.step()
        assert ours.item() == pytest.approx(loss.item(), rel=1e-5)
    for (name, a), b in zip(model.state_dict().items(), trainer.model.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5), name


def test_accumulated_step_is_the_mean_of_its_micro_batches(tmp_path):
    trainer = trainer_for(tmp_path, accumulate=2, weight_decay=0, momentum=0)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny").to(memory_format=torch.channels_last)
    micro = next(trainer.train_batches.epoch(0))
    assert len(micro) == 2 and len(trainer.train_batches) == 4
    for batch in micro:  # one after the other, so that batch norm sees them as ours does
        (F.cross_entropy(model(batch.images), batch.labels) / 2).backward()
    trainer.model.train()
    trainer.train_step(micro, 0.1)
    grads = {n: p.grad for n, p in model.named_parameters()}
    for name, parameter in trainer.model.named_parameters():
        assert torch.allclose(parameter, before[name] - 0.1 * grads[name], rtol=1e-4, atol=1e-6), name


def test_mixup_loss():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
    a, b = torch.tensor([0, 1]), torch.tensor([2, 0])
    mixed = recipe.batch_loss(logits, Batch(torch.empty(0), a, b, 0.3))
    assert mixed.item() == pytest.approx(
        0.3 * F.cross_entropy(logits, a).item() + 0.7 * F.cross_entropy(logits, b).item()
    )


def test_label_smoothing_is_the_loss_against_softened_labels():
    logits, labels = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]]), torch.tensor([0, 1])
    soft = 0.9 * F.one_hot(labels, 3) + 0.1 / 3
    expected = -(soft * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert recipe.batch_loss(logits, Batch(torch.empty(0), labels), 0.1).item() == pytest.approx(expected.item())
    mixed = Batch(torch.empty(0), labels, labels.flip(0), torch.tensor(0.8))
    other = -(soft.flip(0) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert recipe.batch_loss(logits, mixed, 0.1).item() == pytest.approx((0.8 * expected + 0.2 * other).item())


def test_fps_counts_after_five_steps(tmp_path, monkeypatch):
    """The first five steps take 100 s each on this clock, the other three 2 s: FPS is 16 images a 2 s."""
    trainer = trainer_for(tmp_path)
    clock = {"now": 0.0}
    monkeypatch.setattr(trainer_module.time, "perf_counter", lambda: clock["now"])

    def train_step(micro_batches: list[Batch], lr: float) -> torch.Tensor:
        clock["now"] += 100.0 if trainer.step < 5 else 2.0
        return torch.ones(())

    train_step.train = trainer.model.train
    monkeypatch.setattr(trainer, "train_step", train_step)
    trainer.progress.start(1, 2, len(trainer.train_batches))
    assert trainer.train_epoch(StopSignal()) == pytest.approx([8.0])
    assert trainer.seconds == pytest.approx(506.0)


def test_diverged_training_stops_and_keeps_the_last_good_weights(tmp_path, monkeypatch):
    trainer = trainer_for(tmp_path, train_images=32)
    monkeypatch.setattr(TrainStep, "__call__", lambda self, micro, lr: torch.tensor(0.5))
    trainer.config = trainer.config.replace(total_epochs=1)
    trainer.run(trainer.folder, trainer.progress)
    kept = (tmp_path / "last.pt").read_bytes()
    monkeypatch.setattr(TrainStep, "__call__", lambda self, micro, lr: torch.tensor(float("nan")))
    trainer.config = trainer.config.replace(total_epochs=2)
    with pytest.raises(AttnetError, match=r"epoch 2: the training loss is nan.*Lower lr \(0\.1\).*last\.pt"):
        trainer.run(trainer.folder, trainer.progress)
    assert (tmp_path / "last.pt").read_bytes() == kept


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train_batch_size": 256}, ConfigError, "train_batch_size=256.*128 training images"),
        ({"model": "attention57"}, ConfigError, "model='attention57' is unknown.*attention56_cifar"),
        ({"is_pretrain": True, "pretrained": "no/such/file.pt"}, WeightsError, "no such file"),
    ],
)
def test_a_refused_run_leaves_no_folder(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        attnet.fit(TrainConfig(**{**SMALL, **changes}, output_dir=str(tmp_path / "run")))
    assert list(tmp_path.iterdir()) == []


def test_pretrained_weights_of_another_network(tmp_path):
    torch.save(attnet.build_model("attention56_cifar").state_dict(), tmp_path / "other.pt")
    config = TrainConfig(
        **SMALL, is_pretrain=True, pretrained=str(tmp_path / "other.pt"), output_dir=str(tmp_path / "run")
    )
    with pytest.raises(WeightsError, match="they fit model=attention56_cifar"):
        attnet.fit(config)
    assert not (tmp_path / "run").exists()


def test_unwritable_output_dir(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"output_dir=.*cannot be written"):
        attnet.fit(TrainConfig(**SMALL, output_dir=str(tmp_path / "file" / "run")))
