"""The simulated Ascend NPU of tests/npu_simulation: as the CPU to the last digit, and as strict as a card."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import pytest
import simulated_npu_checks as checks
import torch
from npu_simulation import build
from npu_simulation.build import NoCompiler, NoSimulation, environment
from npu_simulation.worker import Worker, WorkerError

import attnet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def with_cards(tmp_path_factory) -> dict[str, str]:
    try:
        return environment(tmp_path_factory.mktemp("npu"), cards=4)
    except NoSimulation as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def npu(with_cards) -> Iterator[Worker]:
    with Worker(with_cards) as worker:
        yield worker


def test_float32_training_is_the_cpus(npu):
    card, cpu = npu(checks.train, "npu:1"), npu(checks.train, "cpu")
    assert card == cpu and card["losses"][-1] < card["losses"][0]


@pytest.mark.parametrize("dtype, tolerance", [("float16", 0.02), ("bfloat16", 0.1)])
def test_half_precision_training_is_near_float32(npu, dtype, tolerance):
    half, full = (npu(checks.train, "npu", kind)["losses"] for kind in (dtype, "float32"))
    assert half == pytest.approx(full, abs=tolerance) and half != full


def test_autocast_takes_the_type_that_each_operator_has_elsewhere(npu):
    half, full = "torch.float16", "torch.float32"
    expected = {"conv": half, "linear": half, "batch norm": half, "sum": half}
    assert npu(checks.autocast_types) == expected | {"softmax": full, "loss": full, "gradient": full}


def test_grad_scaler_skips_an_overflow(npu):
    assert npu(checks.scaled_steps) == [[True, 8.0], [False, 4.0], [True, 4.0], [True, 8.0]]


@pytest.fixture(scope="module")
def refusals(npu) -> dict[str, str]:
    return npu(checks.refusals)


@pytest.mark.parametrize("name", checks.REFUSED)
def test_refusal(refusals, name):
    said = {
        "float64": "simulated NPU: float64 is not supported",
        "complex128": "simulated NPU: complex128 is not supported",
        "NHWC": "simulated NPU: only the contiguous memory format is supported",
        "pinned": "simulated NPU: pinned memory is not supported",
        "two cards": "found at least two devices, npu:0 and npu:1!",
        "card and CPU": "found at least two devices, npu:0 and cpu!",
        "card into CPU": "found at least two devices, npu:0 and cpu!",
        "CPU generator": "Expected a 'npu' device type for generator but found 'cpu'",
        "no such card": "simulated NPU: invalid device ordinal 7, there are 4 cards",
        "numpy": "can't convert npu:0 device type tensor to numpy",
    }
    (message,) = {text for part, text in said.items() if part in name}
    assert message in refusals[name]


def test_tensors_behave_as_elsewhere(npu):
    npu(checks.everyday)


def test_cards(npu):
    npu(checks.cards)


def test_visible_devices_are_read_as_torch_npu_reads_them(with_cards):
    counts = {"0,1,2,3": 4, "2": 1, "1,3": 2, "3,1": 0, "0,9": 1, "": 0, "x": 0, "0,1x,2": 2, "0,,1": 1, "1,2": 2}
    with Worker(with_cards) as worker:
        *found, fixed = worker(checks.visible_cards, list(counts))
    assert dict(zip(counts, found, strict=True)) == counts and fixed == 2


def test_memory_statistics(npu):
    before, held, after, peak, reset = npu(checks.memory)
    assert (held - before, peak - before) == (8000, 12000) and after == reset == before


def test_random_numbers_are_the_cards_own(npu):
    npu(checks.random_numbers)


def test_two_processes_train_over_hccl_as_one_does(npu, with_cards, tmp_path):
    with Worker(with_cards) as second, ThreadPoolExecutor() as pool:
        ranks = [
            pool.submit(worker, checks.parallel, str(tmp_path / "store"), rank)
            for rank, worker in enumerate((npu, second))
        ]
        for rank in as_completed(ranks):  # the first to fail says why; the other waits for it in vain
            rank.result()
        one, two = (rank.result() for rank in ranks)
    alone = npu(checks.alone)
    mean = [(a + b) / 2 for a, b in zip(one, two, strict=True)]
    assert one[-1] == two[-1] and mean == pytest.approx(alone, rel=1e-5)


def test_worker_tells_what_failed(with_cards):
    with Worker(with_cards) as worker:
        with pytest.raises(WorkerError, match=r"(?s)Traceback.*KeyError: 'a reason'.*said before"):
            worker(checks.fail)
        assert worker(checks.scaled_steps)  # it goes on
    with pytest.raises(WorkerError, match=r"(?s)status 3.*last words"), Worker(with_cards) as worker:
        worker(checks.die)


@pytest.mark.parametrize("autoload", [None, "1"])
def test_any_program_has_the_cards(with_cards, autoload):
    program = "import torch; print(torch.npu.get_device_name(), torch.ones(2, device='npu').sum().item())"
    added = {"TORCH_DEVICE_BACKEND_AUTOLOAD": autoload} if autoload else {}
    said = subprocess.run(
        [sys.executable, "-c", program], env=with_cards | added, capture_output=True, text=True, check=True
    )
    assert said.stdout.split("\n")[0] == "simulated NPU (CPU memory, for tests) 2.0" and said.stderr == ""


def test_other_processes_and_attnet_know_nothing_of_it(with_cards):
    assert not hasattr(torch, "npu") and "simulated_npu" not in sys.modules
    sources = [path.read_text() for path in Path(attnet.__file__).parent.rglob("*.py")]
    assert sources and not [text for text in sources if "npu_simulation" in text or "simulated_npu" in text]


def test_without_a_compiler_there_is_a_reason_to_skip(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoCompiler, match=r"needs a C\+\+ compiler"):
        build.library()
