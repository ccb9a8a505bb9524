"""Hooks: what they are told, that they change nothing and stop nothing, and that no file names code."""

import json
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import attnet
from attnet import TrainConfig
from attnet.base.errors import ConfigError
from attnet.base.processes import TrainingInterrupted
from attnet.engine.fit import plan_run
from attnet.engine.hooks import names
from attnet.engine.hooks.hook import Seen, as_hook
from attnet.engine.hooks.tensorboard import TensorBoard
from attnet.engine.launching.torchrun import Torchrun
from attnet.study.sweeps.configs import read_list
from attnet.train import main

SMALL = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"},
    **{"train_images": 32, "test_images": 20, "train_batch_size": 16, "total_epochs": 2, "progress": "none"},
}
OWN = """
told = []


class Mine:
    def epoch(self, row, seen):
        told.append(row["epoch"])
"""


def weights(folder):
    return torch.load(folder / "last.pt", weights_only=True)["model"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A hook of the user's, in a module that is not imported yet."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_own_log.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield "my_own_log:Mine"
    sys.modules.pop("my_own_log", None)


def test_a_function_gets_the_rows_and_a_hook_everything(tmp_path):
    rows, told = [], []

    class Everything:
        def start(self, config, folder, done):
            told.append((config.total_epochs, folder.name, done))

        def epoch(self, row, seen):
            pictures = seen.pictures()
            told.append((row["epoch"], seen.is_kept, sorted(pictures), pictures["masks"].dtype.name))
            assert seen.evaluation.top1 == row["top1"] and not seen.network.training

        def end(self, result):
            told.append(result.last_top1)

    result = attnet.fit(TrainConfig(**SMALL, output_dir=tmp_path / "rows"), log=rows.append)
    assert rows == result.history
    result = attnet.fit(TrainConfig(**SMALL, output_dir=tmp_path / "all"), log=Everything)
    both = ["confusion", "masks"]
    assert told == [(2, "all", 0), (1, False, both, "uint8"), (2, True, both, "uint8"), result.last_top1]


def test_a_hook_that_fails_is_said_once_and_changes_nothing(tmp_path, capsys):
    def careless(row):
        torch.rand(1000)
        raise RuntimeError("no such server")

    plain = attnet.fit(TrainConfig(**SMALL, output_dir=tmp_path / "plain"))
    config = TrainConfig(**SMALL | {"progress": "lines"}, output_dir=tmp_path / "told")
    told = attnet.fit(config, log=careless)
    assert all(map(torch.equal, weights(plain.output_dir).values(), weights(told.output_dir).values()))
    words = "log: careless is called no more, its epoch failed: RuntimeError: no such server"
    assert capsys.readouterr().out.count(words) == 1
    assert (told.output_dir / "log.txt").read_text().count(words) == 1


@pytest.mark.parametrize("log, meant", [("tensorbord", "did you mean 'tensorboard'"), ("wandb", "package.module:name")])
def test_an_unknown_log_is_a_sentence_before_anything_is_begun(tmp_path, log, meant):
    with pytest.raises(ConfigError, match=meant):
        attnet.fit(TrainConfig(**SMALL, output_dir=tmp_path / "run", log=log))
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_a_log_is_a_sentence(tmp_path, monkeypatch):
    for wrong, why in ((3, "a function of an epoch's row"), ("nowhere:x", "cannot be imported"), (object, "is needed")):
        with pytest.raises(ConfigError, match=why):
            as_hook(wrong)
    monkeypatch.setattr(names.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        plan_run(TrainConfig(**SMALL, log="tensorboard"))


# -- no file names code ----------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path, own):
    """A run with the user's own hook that was stopped after its first epoch."""

    def stop(row):
        raise TrainingInterrupted("stopped by a test", 15)

    with pytest.raises(TrainingInterrupted):
        attnet.fit(TrainConfig(**SMALL, output_dir=tmp_path / "run", log=own), log=stop)
    assert sys.modules.pop("my_own_log").told == [1]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["log"] == own
    return tmp_path / "run"


def test_a_resumed_run_imports_no_hook_that_its_folder_names(stopped, own):
    again = TrainConfig(resume=stopped, device_type="CPU", progress="none")
    plan = plan_run(again)
    assert plan.config.log == "" and any(f"log={own}: not called" in line for line in plan.choices)
    attnet.fit(again)
    assert "my_own_log" not in sys.modules


def test_a_resumed_run_calls_the_hook_that_is_given_anew(stopped, own):
    attnet.fit(TrainConfig(resume=stopped, device_type="CPU", progress="none", log=own))
    assert sys.modules["my_own_log"].told == [2]


def test_a_list_of_configurations_names_no_code(tmp_path, own):
    file = tmp_path / "list.json"
    file.write_text(json.dumps([{"lr": 0.1, "log": own}]))
    with pytest.raises(ConfigError, match="code is not run because a file names it"):
        read_list(file, TrainConfig(**SMALL))
    file.write_text(json.dumps([{"lr": 0.1, "log": "tensorboard"}]))
    [config] = read_list(file, TrainConfig(**SMALL)).values()
    assert config.log == "tensorboard" and "my_own_log" not in sys.modules


# -- TensorBoard -----------------------------------------------------------------------------------------------------


def events(folder) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    found.Reload()
    return found


def test_tensorboard_has_what_metrics_have(tmp_path):
    run = tmp_path / "run"
    flags = TrainConfig(**SMALL, output_dir=run, log="tensorboard", keep_epochs=1).flags()
    assert main(flags) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = events(run)
    for name, entry in {"loss/train": "train_loss", "loss/test": "test_loss", "top1/test": "top1"}.items():
        steps = [(event.step, event.value) for event in found.Scalars(name)]
        assert steps == [(row["epoch"], pytest.approx(row[entry])) for row in rows]
    for name in ("masks", "confusion"):
        assert [image.step for image in found.Images(name)] == [1, 2]
        assert all(image.width > 500 for image in found.Images(name))
    assert attnet.Result.load(run).parameters["log"] == "tensorboard"


def test_tensorboard_goes_on_and_shows_no_epoch_twice(tmp_path):
    """A run that told of epoch 3 and was killed before that was saved goes on after epoch 2."""
    seen = Seen(None, None, False, dict)
    for done, epochs in ((0, (1, 2, 3)), (2, (3, 4))):
        hook = TensorBoard()
        hook.start(TrainConfig(**SMALL), tmp_path, done)
        for epoch in epochs:
            hook.epoch({"epoch": epoch, "top1": 10.0 * epoch + done}, seen)
        if done:
            hook.end(None)
    found = [(event.step, event.value) for event in events(tmp_path).Scalars("top1/test")]
    assert found == [(1, 10.0), (2, 20.0), (3, 32.0), (4, 42.0)]


def test_torchrun_hands_the_parameter_on(tmp_path):
    """Its own options begin with --log, too, and it would take ours for one of them cut short."""
    from torch.distributed.run import get_args_parser

    config = TrainConfig(**SMALL, device_num=2, log="tensorboard")
    known = get_args_parser().parse_args(Torchrun(config).arguments(tmp_path))
    assert known.training_script == "attnet.train"
    given = TrainConfig.parse(known.training_script_args)
    assert given.log == "tensorboard" and given.device_num == 2


def test_tensorboard_writes_nothing_through_a_link(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="tensorboard in it is a link or no folder; take it away"):
        TensorBoard().start(TrainConfig(), tmp_path / "run", 0)
    assert not [*(tmp_path / "elsewhere").iterdir()]
