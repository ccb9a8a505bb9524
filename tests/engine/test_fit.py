"""The loop trains as the document's code does, records what it did, and refuses to lose or spoil anything."""

import pytest
import torch
import torch.nn.functional as F

import attnet
from attnet.base.errors import AttnetError, ConfigError, WeightsError
from attnet.base.processes import StopSignal
from attnet.base.progress import Progress
from attnet.data.batches import Batch
from attnet.engine import loop as trainer_module
from attnet.engine.distributed import World
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan
from attnet.engine.run_folder import RunFolder, epoch_files
from attnet.engine.step import TrainStep
from attnet.model.weights.opened import Weights

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


def test_an_epoch_that_was_begun_on_other_cards_has_the_loss_of_all_its_steps(tmp_path):
    """And nothing that could be repeated on one card."""
    trainer = trainer_for(tmp_path, accumulate=2)
    trainer.progress.start(1, 2, len(trainer.train_batches))
    trainer.progress.begin_epoch(1, 1)
    begun = trainer.state() | {"step": 1, "trace": [torch.tensor(2.0)]}
    steps = len(trainer.train_batches)
    sums = {2: [torch.tensor(3.0), torch.tensor(1.0)], 1: [torch.tensor(2.0)]}
    for cards, mixed in ((1, False), (2, True)):
        trainer.load_state(begun | {"loss_sums": sums[cards]})
        assert (trainer.loss_sum.item(), trainer.mixed) == (2.0, mixed)
        assert trainer.state()["mixed"] is mixed
        trainer.load_state(trainer.state())
        assert trainer.mixed is mixed, "once more stopped and gone on"
        trainer.step = steps
        trainer.rank_fps = [1.0]
        trainer.end_epoch(StopSignal())
        row = trainer.rows.pop()
        assert row["train_loss"] == 2.0 / steps
        assert ("trace" in row, "trace_of_rank_0" in row) == (not mixed, mixed)
        assert not trainer.mixed
    trainer.world = World(1, 2, 1, 2)
    trainer.load_state(begun | {"loss_sums": sums[1]})
    assert trainer.loss_sum.item() == 2.0, "the mean over cards is what is told"


def trainer_for(tmp_path, **changes: object) -> trainer_module.Trainer:
    plan = make_plan(TrainConfig(**{**SMALL, **changes}))
    trainer = trainer_module.Trainer(plan)
    trainer.folder, trainer.progress = RunFolder(tmp_path), Progress(lambda line: None)
    return trainer


def test_weights_are_kept_along_the_way_and_the_result_reads_back(tmp_path):
    small = {**SMALL, "train_images": 32, "keep_epochs": 2}
    result = attnet.fit(TrainConfig(**small, output_dir=str(tmp_path / "kept")))
    kept = epoch_files(str(result.output_dir))
    assert [path.name for path in kept] == ["epoch_000.pt", "epoch_002.pt"]
    untrained, trained = (Weights.open(path).state for path in kept)
    last = Weights.open(result.output_dir / "last.pt").state
    assert all(torch.equal(trained[name], value) for name, value in last.items())
    assert not torch.equal(untrained["fc.weight"], last["fc.weight"])
    assert attnet.Result.load(result.output_dir) == result
    assert result.weights == result.output_dir / "best.pt"


def test_same_seed_same_steps_other_seed_others():
    def losses(seed: int) -> list[float]:
        trainer = trainer_module.Trainer(make_plan(TrainConfig(**{**SMALL, "train_images": 48, "seed": seed})))
        trainer.train_step.train()
        return [trainer.train_step(micro, 0.1).item() for micro in trainer.train_batches.epoch(0)]

    first = losses(0)
    assert losses(0) == first and losses(1) != first


def test_recipe_seed_against_a_plain_loop(tmp_path):
    """Five steps equal those of the document's loop, written down again without our engine.

    In double precision, since at lr 0.1 the rounding of float32 grows tenfold from step to step.
    """
    trainer = trainer_for(tmp_path, train_batch_size=8)
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
    assert trainer.train_epoch(StopSignal()) and trainer.rank_fps == pytest.approx([8.0])
    assert trainer.clock.wall == pytest.approx(506.0)


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


def test_an_epoch_whose_last_step_diverges_is_an_error(tmp_path, monkeypatch):
    trainer = trainer_for(tmp_path, train_images=32)

    def diverge(self, micro, lr):
        with torch.no_grad():
            self.model.stages.stage2.entry.conv1.weight.fill_(float("nan"))
        return torch.tensor(0.5)

    monkeypatch.setattr(TrainStep, "__call__", diverge)
    with pytest.raises(
        AttnetError, match=r"logits of 50 test images .*first of all stages\.stage2\.entry\.conv1\.weight"
    ):
        trainer.run(trainer.folder, trainer.progress)
    assert not any((tmp_path / name).exists() for name in ("best.pt", "last.pt", "result.json"))


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
