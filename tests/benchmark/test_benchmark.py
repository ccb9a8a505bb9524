"""The benchmark: grids, counts, ceilings, a small real sweep, and results as tables and side by side."""

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnet.base.device import KINDS, choose, environment
from attnet.base.errors import AttnetError, ConfigError
from attnet.benchmark import ceilings, losses, ranks, steps, versus
from attnet.benchmark.command import _kind, main, make_parser
from attnet.benchmark.compare import compare
from attnet.benchmark.counts import count_step, counts_of, element_size
from attnet.benchmark.grid import Setting, grid
from attnet.benchmark.loops import PARTS, REFERENCE_CLASS, in_words
from attnet.benchmark.tables import result_table
from attnet.benchmark.worker import Worker
from attnet.engine.plan import make_plan
from attnet.model.anatomy import totals
from attnet.model.units import ResidualUnit
from attnet.model.variants import build_model

CPU = KINDS["CPU"]()
TINY = "attention56_tiny"
# Of every row of a sweep that did not fail, on one card.
KEYS = {
    "model", "batch_size", "amp", "channels_last", "compile", "device_num", "step_seconds", "images_per_second",
    "first_step_seconds", "peak_memory_bytes", "shares", "evaluation_images_per_second", "evaluation_share",
    "flops_per_image", "bytes_per_image", "flops_per_second", "bytes_per_second", "share_of_ceiling",
}  # fmt: skip
# Stands in for a copy of the reference repository.
REFERENCE = f"""
import torch

class {REFERENCE_CLASS}(torch.nn.Module):
    def __init__(self):
        super().__init__()
        print("hello from the reference")
        self.fc = torch.nn.Linear(3, 10)

    def forward(self, images):
        assert images.is_contiguous()
        if len(images) == 16:
            raise RuntimeError("out of memory: tried to allocate 7 GiB\\nand then pages of advice")
        return self.fc(images.mean(dim=(2, 3)))
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


# ---- what is measured ----


def small_grid(**lists: list) -> list[Setting]:
    given = {
        "models": [TINY], "batch_sizes": [8], "amps": ["O0"], "memory_formats": ["channels_last"],
        "compiles": ["off"], "device_nums": [1],
    }  # fmt: skip
    return grid(**given | lists)


def test_a_grid_is_every_combination_once():
    settings = small_grid(
        batch_sizes=[8, 32, 8], amps=["O0", "o2"], memory_formats=["contiguous", "channels_last"], compiles=["true"]
    )
    found = [(s.batch_size, s.amp, s.channels_last, s.compile) for s in settings]
    assert found == [(*rest, "on") for rest in itertools.product((8, 32), ("O0", "O2"), (False, True))]
    assert len({str(setting) for setting in settings}) == len(settings), "names tell configurations apart"
    assert [Setting.of(json.loads(json.dumps(setting.to_dict()))) for setting in settings] == settings


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"models": ["attention9"]}, "model='attention9' is unknown: choose from attention92"),
        ({"batch_sizes": [8, 0]}, "train_batch_size=0"),
        ({"amps": ["O0", "O4"]}, "amp='O4': choose one of"),
        ({"amps": ["auto"]}, "amp='auto': name the opt levels"),
        ({"memory_formats": ["NHWC"]}, "memory_format='NHWC': choose from channels_last, contiguous"),
        ({"compiles": ["fast"]}, "compile='fast': choose one of off, on, graphs"),
        ({"device_nums": [0]}, "device_num=0"),
    ],
)
def test_a_value_that_does_not_exist_is_named_before_anything_starts(lists, message):
    with pytest.raises(ConfigError, match=message):
        small_grid(**lists)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("", "steps"),
        ("--reference x", "versus"),
        ("--reference x --batch_size 32 --amp O2 --compile on", "versus"),
        ("--reference x --sweep", "steps"),
        ("--reference x --batch_size 32,64", "steps"),
        ("--reference x --device_num 2", "steps"),
        ("--losses 6 --lr 0.001", "losses"),
        ("--ranks 2 --batch_size 128 --train_images 6400 --rounds 5", "ranks"),
        ("--profile --reference x", "profile"),
        ("--epoch --reference x", "epoch"),
        ("--growth --curves memory", "growth"),
    ],
)
def test_the_flags_say_what_is_measured(words, kind):
    assert _kind(make_parser().parse_args(words.split())) == kind


def test_lists_are_separated_by_commas():
    options = make_parser().parse_args(["--model", "a, b", "--batch_size", "8,16", "--device_num", "1"])
    assert (options.model, options.batch_size, options.device_num) == (["a", "b"], [8, 16], [1])
    for bad in (["--batch_size", "8,"], ["--batch_size", "x"], ["--amp", ""]):
        with pytest.raises(SystemExit):
            make_parser().parse_args(bad)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--losses 2 --batch_size 8,16", "--batch_size 8,16: --losses takes one value"),
        ("--epoch --growth", "--epoch and --growth: ask for one"),
        ("--resume", "--resume: it goes on with the sweep in --output"),
        ("--sweep --rounds 0", "rounds=0: at least 1"),
        ("--sweep --output {}/nowhere/x.json", "nowhere; make it, or name another"),
        ("--sweep --reference {}", "no folder model/ there"),
        ("--compare {0}/a.json {0}/b.json", "a.json: not a readable result file"),
    ],
)
def test_a_mistake_is_a_sentence(words, message, capsys, tmp_path):
    assert main(words.format(tmp_path).split()) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("attnet: ")


# ---- counts ----


@pytest.mark.parametrize("model", [TINY, "attention92"])
def test_training_takes_three_times_the_flops_of_a_forward_pass(model):
    # Backward, each convolution makes two gradients, but the first one does not make that of the images.
    assert 2.98 < counts_of(model).flops / totals(model).flops < 3


def by_hand(model: nn.Module) -> int:
    """The floor of a network without masks, elements an image, from the sizes of its modules' inputs and outputs."""
    sizes: dict[str, tuple[int, int]] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: sizes.update({name: (inputs[0].numel(), output.numel())})
        )
    model(torch.rand(2, 3, 32, 32))
    total, before = 0, None
    for name, module in model.named_modules():
        into, out = sizes[name]
        if isinstance(module, nn.Conv2d):
            total += 3 * into + 2 * out if name != "stem.0" else 2 * into + 2 * out  # nobody wants the images' gradient
        elif isinstance(module, nn.BatchNorm2d):
            total += into
        elif isinstance(module, nn.Linear):
            total += 3 * into + 2 * out
        elif isinstance(module, ResidualUnit):
            total += out + into  # reads of the sum forward, and of that of the gradients backward
            total += into if before is not None else 0  # the gradient that the unit before needs twice
            before = name
    tail = sizes["norm"][1]
    return (total + tail + tail + sizes["fc"][0]) // 2  # the last gradient is shared, too; then the global mean


def test_the_floor_is_what_a_count_by_hand_gives():
    model = build_model(TINY, attention="none")
    counted = count_step(model)
    assert counted.floor_maps == by_hand(model)
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters()), "the model stays as it is"


def test_masks_cost_more_than_none():
    with torch.device("meta"):
        plain = count_step(build_model(TINY, attention="none"))
        naive = count_step(build_model(TINY, combine="naive"))
    for masked in (naive, counts_of(TINY)):
        assert masked.flops > plain.flops
        assert masked.floor_maps > plain.floor_maps
        assert masked.floor_bytes(64, 2) < masked.eager_bytes(64, 2)


def test_bytes_follow_the_element_and_the_batch():
    counts, larger = counts_of(TINY), counts_of("attention92")
    half, single = element_size("O2"), element_size("O0")
    assert [element_size(amp) for amp in ("O0", "O1", "O2", "O3")] == [4, 2, 2, 2]
    for batch_size in (1, 64):
        assert counts.floor_bytes(batch_size, single) == 2 * counts.floor_bytes(batch_size, half)
        assert counts.floor_bytes(batch_size, half) < counts.eager_bytes(batch_size, half)
    # A batch of 1 bears the weights alone: 8 accesses a parameter.
    spared = counts.floor_bytes(1, half) - counts.floor_bytes(2, half)
    assert spared == pytest.approx(half * 8 * counts.parameters / 2)
    assert larger.floor_bytes(64, half) > counts.floor_bytes(64, half)
    assert larger.flops > counts.flops


# ---- ceilings ----


def ticking(monkeypatch, intervals: list[float]) -> None:
    """A clock on which each measured operation takes the next of `intervals` seconds."""
    readings = itertools.accumulate(itertools.chain.from_iterable((0.0, seconds) for seconds in intervals))
    monkeypatch.setattr(time, "perf_counter", lambda: next(readings))


def test_ceilings_are_work_over_the_median_time(monkeypatch):
    # The first two times do not count, nor does an outlier.
    ticking(monkeypatch, [50.0, 50.0, 0.5, 0.25, 9.0, 0.5, 0.5])
    assert ceilings.copy_bandwidth(CPU, 2**16, repeats=5) == 2 * 2**16 / 0.5
    ticking(monkeypatch, [50.0, 50.0, 0.5, 0.25, 9.0, 0.5, 0.5])
    assert ceilings.matmul_speed(CPU, torch.float32, 32, repeats=5) == 2 * 32**3 / 0.5


def test_ceilings_of_this_machine(monkeypatch):
    monkeypatch.setattr(ceilings, "COPY_SIZE", {False: 2**22})
    monkeypatch.setattr(ceilings, "MATRIX_SIDE", {False: 64})
    before = torch.get_float32_matmul_precision()
    found = ceilings.measure_ceilings(CPU)
    assert found["copy_bytes_per_second"] > 0
    half = str(CPU.half_dtype).removeprefix("torch.")
    assert set(found["matmul_flops_per_second"]) == {"float32", half}
    assert min(found["matmul_flops_per_second"].values()) > 0
    assert torch.get_float32_matmul_precision() == before


# ---- a sweep ----


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> SimpleNamespace:
    """A real sweep through the command line, a stand-in of the reference beside it."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "model").mkdir()
    (folder / "model" / "residual_attention_network.py").write_text(REFERENCE)
    words = ["--model", TINY, "--batch_size", "8,16", "--rounds", "2", "--test_images", "20", "--device_type", "CPU"]
    words += ["--reference", str(folder), "--output", str(folder / "result.json")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        assert main(words) == 0
    text = (folder / "result.json").read_text()
    return SimpleNamespace(result=json.loads(text), text=text, words=words, folder=folder)


def test_a_sweep_writes_everything_down(swept):
    result = swept.result
    assert swept.text.endswith("}\n")
    assert result["kind"] == "steps" and result["rounds"] == 2
    assert result["command"] == "attnet benchmark " + " ".join(swept.words)
    assert result["environment"]["torch"] == torch.__version__
    assert [(row["implementation"], row["batch_size"]) for row in result["rows"]] == [
        ("ours", 8), ("ours", 16), ("reference", 8), ("reference", 16),
    ]  # fmt: skip
    for row in result["rows"][:3]:
        assert set(row) >= KEYS


def test_the_figures_of_a_row_fit_together(swept):
    copy = swept.result["ceilings"]["copy_bytes_per_second"]
    product = swept.result["ceilings"]["matmul_flops_per_second"]["float32"]
    for row in swept.result["rows"][:3]:
        step = row["step_seconds"]
        assert len(step["all"]) == 2
        assert step["median"] == statistics.median(step["all"])
        assert (step["low"], step["high"]) == (min(step["all"]), max(step["all"]))
        speed = row["images_per_second"]
        assert speed == row["batch_size"] / step["median"]
        assert set(row["shares"]) == set(PARTS) and min(row["shares"].values()) > 0
        assert row["first_step_seconds"] > 0 and row["peak_memory_bytes"] > 2**20
        counts = counts_of(row["model"])
        assert row["flops_per_image"] == counts.flops
        assert row["bytes_per_image"] == counts.floor_bytes(row["batch_size"], 4)
        assert row["flops_per_second"] == pytest.approx(counts.flops * speed)
        assert row["bytes_per_second"] == pytest.approx(row["bytes_per_image"] * speed)
        bound = max(row["bytes_per_second"] / copy, row["flops_per_second"] / product)
        assert row["share_of_ceiling"] == pytest.approx(bound)
        training, testing = 50_000 / speed, 10_000 / row["evaluation_images_per_second"]
        assert row["evaluation_share"] == pytest.approx(testing / (training + testing))


def test_a_configuration_that_fails_leaves_its_error(swept):
    *_, failed = swept.result["rows"]
    assert failed["error"] == "RuntimeError: out of memory: tried to allocate 7 GiB and then pages of advice"
    assert failed["model"] == "attention92" and "images_per_second" not in failed
    shown = result_table(swept.result)
    assert "failed: reference, batch 16: RuntimeError: out of memory" in shown
    speed = swept.result["rows"][0]["images_per_second"]
    assert f"| {TINY}, batch 8, O0, channels-last " in shown and f"{speed:.3g}" in shown


def test_a_sweep_goes_on_where_it_was_stopped(swept, monkeypatch, capsys):
    stopped = swept.result | {"rows": swept.result["rows"][1:]}
    output = swept.folder / "stopped.json"
    output.write_text(json.dumps(stopped))
    asked = []

    def measure(group, *_):
        asked.extend(group)
        found = {"steps": [2.0], "parts": [dict.fromkeys(PARTS, 0.5)], "peak": 7.0, "evaluation": 100.0}
        yield from ((setting, found | {"first_step_seconds": 3.0}) for setting in group)

    monkeypatch.setattr(steps, "_measure", measure)
    words = ["--model", TINY, "--batch_size", "8,16", "--device_type", "CPU", "--output", str(output), "--resume"]
    assert main([*words, "--json"]) == 0
    result = json.loads(output.read_text())
    assert result == json.loads(capsys.readouterr().out)
    assert asked == [Setting(TINY, 8)]
    assert [row["images_per_second"] for row in result["rows"][:1]] == [4.0]
    assert result["rows"][1:] == stopped["rows"], "what was measured stays, asked for again or not"
    elsewhere = stopped | {"environment": stopped["environment"] | {"device": "another"}}
    for known, message in ((elsewhere, "was measured with device another"), ({"kind": "epoch"}, "of kind 'epoch'")):
        with pytest.raises(ConfigError, match=message):
            steps.sweep([TINY], known=known)


def test_several_cards_are_a_run(monkeypatch):
    given = {}
    roofs = {"copy_bytes_per_second": 1e9, "matmul_flops_per_second": {"float32": 1e9, "bfloat16": 1e12}}
    run = {"metrics": {"fps": 64.0}, "peak_memory": 5}
    monkeypatch.setattr(steps, "short_run", lambda **words: given.update(words) or run)
    monkeypatch.setattr(steps, "ceilings_apart", lambda device_type: roofs)
    result = steps.sweep([TINY], [16], ["O2"], ["contiguous"], ["on"], [4], device_type="CPU", rounds=3, data_path="no")
    (row,) = result["rows"]
    assert (given["device_num"], given["train_batch_size"], given["amp"], given["compile"]) == (4, 16, "O2", "on")
    assert given["channels_last"] is False and given["train_images"] % 64 == 0 and given["dataset"] == "shapes"
    assert row["images_per_second"] == 64 and row["step_seconds"]["median"] == 1 and "shares" not in row
    assert row["share_of_ceiling"] == pytest.approx(16 * row["bytes_per_image"] / 1e9), "of a card, in the half type"
    assert result["command"].startswith(f"attnet benchmark --sweep --model {TINY} --batch_size 16 --amp O2 ")
    assert "–" in result_table(result)
    monkeypatch.setattr(steps, "short_run", lambda **words: ranks.short_run(model="nobody", device_type="CPU"))
    (row,) = steps.sweep([TINY], [16], device_nums=[2], device_type="CPU", data_path="no")["rows"]
    assert "a run ended with status 2" in row["error"] and "model='nobody'" in row["error"]


@pytest.mark.slow
def test_two_ranks_for_real(tmp_path):
    result = steps.sweep([TINY], [8], device_nums=[2], device_type="CPU", rounds=2, data_path=str(tmp_path))
    (row,) = result["rows"]
    assert "error" not in row, row
    assert row["images_per_second"] > 0 and row["peak_memory_bytes"] > 2**20


def test_configurations_share_the_memory_that_is_there(monkeypatch):
    settings = small_grid(batch_sizes=[8, 16, 1024, 32], device_nums=[1])
    needs = [steps.memory_need(setting) for setting in settings]
    assert needs == [needs[0], *needs[1:]] and needs[2] > 8 * needs[0]
    monkeypatch.setattr(steps, "available_memory", lambda: int(needs[0] + needs[1] + 1))
    groups = [[setting.batch_size for setting in group] for group in steps._groups(settings, together=True)]
    assert groups == [[8, 16], [1024], [32]]
    assert steps._groups(settings, together=False) == [[setting] for setting in settings]
    cards = small_grid(device_nums=[1, 2])
    monkeypatch.setattr(steps, "available_memory", lambda: 10**15)
    assert steps._groups(settings + cards, together=True) == [settings[:4] + cards[:1], cards[1:]]
    assert steps.available_memory() == 10**15


# ---- processes ----


def test_a_process_that_is_killed_is_an_error_with_the_cause(tmp_path, monkeypatch):
    (tmp_path / "doomed.py").write_text("import os\nprint('{}', flush=True)\ninput()\nos.kill(os.getpid(), 9)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker("doomed", {}) as worker, pytest.raises(AttnetError, match=r"status -9: killed, .* memory is full"):
        worker.ask(what="step")
    assert worker.process.poll() is not None


def test_an_error_is_a_line():
    assert in_words(RuntimeError("\n  first\nsecond\nthird")) == "RuntimeError: first second"
    assert len(in_words(RuntimeError("x" * 10_000))) < 400


# ---- the other measurements ----


class FakeWorker:
    """Takes steps of given seconds."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = iter(seconds)

    def __enter__(self) -> "FakeWorker":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, what: str) -> dict:
        return {"answer": next(self.seconds) if what == "step" else 10**9}


def test_our_step_beside_the_references(monkeypatch, capsys, tmp_path):
    seconds = {"ours": [1.0, 2.0, 4.0], "reference": [3.0, 2.0, 16.0]}
    asked = []

    def steps_worker(setting: Setting, device_type: str, reference: Path) -> FakeWorker:
        asked.append((setting, device_type, reference))
        return FakeWorker(seconds[setting.implementation])

    monkeypatch.setattr(versus, "steps_worker", steps_worker)
    monkeypatch.setattr(versus, "import_seconds", lambda: {"torch": 1.0, "attnet": 1.1})
    output = tmp_path / "versus.json"
    words = ["--reference", str(tmp_path), "--rounds", "3", "--amp", "O1", "--device_type", "CPU"]
    assert main([*words, "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    assert asked[0] == (Setting("attention92", 64, "O1"), "CPU", tmp_path)
    assert result["kind"] == "versus"
    assert result["images_per_second"] == {"ours": 32, "reference": 64 / 3}
    assert result["ratio"] == {"median": 3, "low": 1, "high": 4}
    assert "reference / ours, step by step: 3 (1–4)" in capsys.readouterr().out


def test_operators_add_up_to_the_step_and_have_a_kind(tmp_path):
    output = tmp_path / "profile.json"
    words = f"--profile --model {TINY} --batch_size 4 --rounds 2 --device_type CPU --output {output}"
    assert main(words.split()) == 0
    result = json.loads(output.read_text())
    operators, kinds = result["operators"]["ours"], result["kinds"]["ours"]
    assert list(operators.values()) == sorted(operators.values(), reverse=True)
    assert {"convolution", "convolution_backward", "native_batch_norm_backward", "_fused_sgd_"} <= set(operators)
    assert {"convolution", "batch norm", "sums", "optimiser"} <= set(kinds)
    assert kinds["convolution"] > kinds["optimiser"] > 0
    assert kinds.get("other", 0) < 0.3 * sum(kinds.values()), "what the time goes to has a name"


def test_importing_is_timed_in_fresh_processes_in_turn(monkeypatch):
    ticking(monkeypatch, [1.0, 2.0, 9.0, 4.0, 3.0, 2.5])
    started = []
    monkeypatch.setattr(versus.subprocess, "run", lambda words, check: started.append(words))
    assert versus.import_seconds(rounds=3) == {"torch": 3.0, "attnet": 2.5}
    codes = ("import torch", "from attnet import fit")
    assert started == [[sys.executable, "-c", code] for code in codes] * 3


def test_losses_of_our_engine_are_those_of_float64(monkeypatch):
    changes = {"dataset": "shapes", "mode": "rehearsal", "train_images": 40}
    monkeypatch.setattr(losses, "make_plan", lambda config: make_plan(config.replace(**changes)))
    options = argparse.Namespace(
        model=TINY, batch_size=10, amp="O0", losses=2, lr=0.01, data_path="", device_type="CPU"
    )
    result = losses.compare_losses(options)
    assert {len(values) for values in result["losses"].values()} == {2}
    assert result["largest_relative_difference"]["ours to float64_at_our_weights"] < 1e-4
    assert f"{result['losses']['ours'][1]:.6f}" in result_table(result)


def test_ranks_share_the_global_batch(monkeypatch):
    runs = []

    def short_run(**words: object) -> dict:
        runs.append(words)
        return {"metrics": {"fps": 100.0 if words["device_num"] == 1 else 100.0 + 20 * len(runs)}}

    monkeypatch.setattr(ranks, "short_run", short_run)
    options = argparse.Namespace(
        model=TINY, ranks=2, batch_size=32, train_images=64, rounds=2, data_path="", device_type="CPU"
    )
    result = ranks.measure_ranks(options)
    assert [(run["device_num"], run["train_batch_size"]) for run in runs] == [(1, 32), (2, 16)] * 2
    assert result["fps"] == {"1 ranks": [100.0, 100.0], "2 ranks": [140.0, 180.0]}
    assert result["efficiency"] == {"median": 1.6, "low": 1.4, "high": 1.8}
    assert "many / one, run by run: 1.6 (1.4–1.8)" in result_table(result)


# ---- side by side ----


def steps_result(**speeds: float | None) -> dict:
    rows = []
    for name, speed in speeds.items():
        row = Setting(TINY, int(name.removeprefix("batch"))).to_dict()
        rows.append(row | ({"error": "no"} if speed is None else {"images_per_second": speed, "peak_memory_bytes": 10}))
    return {"kind": "steps", "rows": rows, "environment": environment(choose("CPU")), "date": "2026-01-02"}


def test_two_sweeps_are_matched_by_configuration():
    a, b = steps_result(batch8=10.0, batch16=300.0, batch32=5.0), steps_result(batch16=450.0, batch64=1.0, batch8=None)
    text = compare(a, b)
    lines = [line for line in text.splitlines() if line.startswith(f"| {TINY}")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[1:] for row in cells] == [["10", "failed", "–", "–"], ["300", "450", "1.50", "1.00"]]
    assert f"Only in A: {Setting(TINY, 32)}" in text and f"Only in B: {Setting(TINY, 64)}" in text
    assert "Warning" not in text
    assert f"A: {a['environment']['device']}, torch {torch.__version__}, 2026-01-02" in text


def test_another_machine_is_told():
    a, b = steps_result(batch8=10.0), steps_result(batch8=20.0)
    b["environment"] = b["environment"] | {"torch": "1.0", "device": "abacus"}
    text = compare(a, b)
    assert f"Warning: torch differs: {torch.__version__} in A, 1.0 in B" in text
    assert "Warning: device differs" in text and "Warning: threads" not in text


def epoch_result(ours: list[float], workers: int = 2) -> dict:
    parts = {"ours": {"train": ours, "test": [1.0]}, "plain": {"train": [8.0], "test": [2.0]}}
    return {
        "kind": "epoch", "what": "an epoch", "model": TINY, "batch_size": 8, "workers": workers, "parts": parts,
        "seconds": {"ours": [value + 1 for value in ours], "plain": [10.0]}, "top1": {"ours": [90.0], "plain": [80.0]},
        "ratio": {"median": 5.0, "low": 4.0, "high": 6.0}, "environment": environment(choose("CPU")),
    }  # fmt: skip


def growth_result(slope: float, batch_size: int = 8) -> dict:
    fit = {"slope": slope, "intercept": 1.0, "r2": 1.0}
    curve = {"x": [1000, 2000], "y": [[slope, slope + 1], [2 * slope]], "median": [slope + 0.5, 2 * slope], "fit": fit}
    single = {"x": [8], "y": [[7.0]], "median": [7.0], "fit": None}
    return {
        "kind": "growth", "what": "cost", "images": curve | {"batch_size": batch_size}, "memory": single,
        "environment": environment(choose("CPU")),
    }  # fmt: skip


def test_epochs_side_by_side():
    text = compare(epoch_result([3.0, 4.0, 9.0]), epoch_result([2.0], workers=4))
    assert "Warning: workers differs: 2 in A, 4 in B" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| ours, s training")]
    assert [cell.strip() for cell in line.strip("|").split("|")] == ["ours, s training", "4", "2", "0.50"]
    assert "| plain / ours" in text


def test_growth_side_by_side():
    b = growth_result(6.0, batch_size=16)
    del b["memory"]
    text = compare(growth_result(3.0), b)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "images, " in line]
    assert rows == [
        ["images, x = 1,000", "3.5", "6.5", "1.86"], ["images, x = 2,000", "6", "12", "2.00"],
        ["images, slope", "3", "6", "2.00"],
    ]  # fmt: skip
    assert "Warning: images: batch_size differs: 8 in A, 16 in B" in text and "Only in A: memory" in text


def test_epochs_and_growth_as_tables():
    assert "| whole epoch" in result_table(epoch_result([3.0])) and "5 (4–6)" in result_table(epoch_result([3.0]))
    text = result_table(growth_result(3.0))
    assert "1 + 3 x, r² = 1.0000" in text and "| memory" in text and "no line: less than three points" in text


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (steps_result(), growth_result(1.0), "A is of kind 'steps', B of kind 'growth'"),
        ({"kind": "losses"}, {"kind": "losses"}, "results of kind 'losses' are not compared; give two of steps"),
        ({}, {}, "kind None"),
    ],
)
def test_only_the_same_kind_compares(a, b, message):
    with pytest.raises(ConfigError, match=message):
        compare(a, b)


def test_files_are_compared_from_the_command_line(tmp_path, capsys):
    for name, speed in (("a", 10.0), ("b", 30.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(steps_result(batch8=speed)))
    assert main(["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "| 3.00 |" in capsys.readouterr().out.replace("  ", " ")
    (tmp_path / "b.json").write_text("[1]")
    assert main(["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2
    assert "b.json: holds no result, but a list" in capsys.readouterr().err
