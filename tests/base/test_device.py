"""Devices: chosen in order, refused by name, and known to one file only."""

from __future__ import annotations

import ast
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attnet.base import device as devices
from attnet.base.device import KINDS
from attnet.base.errors import ConfigError
from attnet.base.host import Memory, environment

ROOT = Path(__file__).resolve().parents[2]


def fake_cards(cards: int, calls: list | None = None, bfloat16: bool = True) -> SimpleNamespace:
    """What `torch.npu` and `torch.cuda` offer of what is used here, for `cards` cards; calls are noted."""
    note = (lambda *call: calls.append(call)) if calls is not None else (lambda *call: None)
    return SimpleNamespace(
        is_available=lambda: cards > 0,
        device_count=lambda: cards,
        get_device_name=lambda index: f"Fake{index}",
        set_device=lambda index: note("set_device", index),
        synchronize=lambda index: note("synchronize", index),
        is_bf16_supported=lambda: bfloat16,
        memory_allocated=lambda index: 100 + index,
        max_memory_allocated=lambda index: 1000 + index,
        mem_get_info=lambda index: (5000, 10000 + index),
        get_rng_state=lambda index: torch.tensor([index], dtype=torch.uint8),
        set_rng_state=lambda state, index: note("set_rng_state", state.tolist(), index),
    )


@pytest.fixture
def only_cpu(monkeypatch):
    """A machine without accelerators, whatever runs the test."""
    monkeypatch.setattr(torch, "cuda", fake_cards(0))
    monkeypatch.setattr(torch, "mps", fake_cards(0))
    monkeypatch.delattr(torch, "npu", raising=False)


def test_without_accelerators(only_cpu):
    chosen = devices.choose()
    assert chosen == KINDS["CPU"]() == devices.choose("cpu")
    assert (chosen.torch_device, chosen.backend, chosen.is_accelerator) == (torch.device("cpu"), "gloo", False)
    assert chosen.name
    assert chosen.memory().peak > 10 * 2**20  # torch alone takes more
    record = environment(chosen)
    assert record["torch"] == torch.__version__ and record["device"] == chosen.name


@pytest.mark.parametrize(
    "device_type, device_id, words",
    [
        ("GPU", 0, ["device_type=GPU", "only CPU"]),
        ("NPU", 0, ["device_type=NPU", "only CPU", "attnet doctor"]),
        ("tpu", 0, ["'tpu'", "NPU, GPU, MPS, CPU"]),
        ("CPU", 1, ["device_id=1", "0 to 0"]),
        ("auto", -1, ["device_id=-1"]),
    ],
)
def test_what_is_not_here_is_refused(only_cpu, device_type, device_id, words):
    with pytest.raises(ConfigError) as error:
        devices.choose(device_type, device_id)
    assert [word for word in words if word not in str(error.value)] == []


def test_auto_takes_npu_then_gpu_then_mps(only_cpu, monkeypatch):
    for name, kind in (("mps", "MPS"), ("cuda", "GPU"), ("npu", "NPU")):
        monkeypatch.setattr(torch, name, fake_cards(2), raising=False)
        assert devices.choose("auto", 1) == KINDS[kind](1)
    assert devices.choose("gpu").torch_device == torch.device("cuda", 0)
    assert devices.choose("mps").torch_device == torch.device("mps")
    with pytest.raises(ConfigError, match="device_id=2: NPU cards here are numbered 0 to 1"):
        devices.choose("auto", 2)


def test_an_npu_is_driven_through_its_module(only_cpu, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "npu", fake_cards(8, calls), raising=False)
    npu = devices.choose("NPU", 3)
    with npu.working():
        npu.synchronize()
    assert calls == [("set_device", 3), ("synchronize", 3)]
    assert (npu.type, npu.label, npu.name, npu.backend) == ("npu", "npu", "Fake3", "hccl")
    assert npu.memory() == Memory(used=103, peak=1003, total=10003)
    assert (npu.half_types, npu.half_dtype) == ((torch.float16, torch.bfloat16), torch.float16)
    assert (npu.usual_level[0], npu.has_fused_optimizer(torch.float32), npu.group_options) == ("O2", False, {})


def test_an_old_card_has_float16_alone(only_cpu, monkeypatch):
    monkeypatch.setattr(torch, "npu", fake_cards(1, bfloat16=False), raising=False)
    assert devices.choose("NPU").half_types == (torch.float16,)


def test_what_was_drawn_before_does_not_matter_after_the_state_is_put_back(only_cpu, monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "npu", fake_cards(8, calls), raising=False)
    npu = devices.choose("NPU", 5)
    state = npu.rng_state()
    drawn = torch.rand(3)
    npu.set_rng_state(state)
    assert torch.equal(torch.rand(3), drawn)
    assert calls == [("set_rng_state", [5], 5)]
    calls.clear()
    KINDS["CPU"]().set_rng_state(state)  # elsewhere the card's own state means nothing
    assert torch.equal(torch.rand(3), drawn) and calls == []
    npu.set_rng_state(KINDS["CPU"]().rng_state())
    assert calls == []


def test_the_variable_that_hides_cards_is_named(only_cpu, monkeypatch):
    monkeypatch.setattr(torch, "npu", fake_cards(2), raising=False)
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "4,5")
    with pytest.raises(ConfigError, match=r"device_id=4: NPU cards .* 0 to 1 \(ASCEND_RT_VISIBLE_DEVICES=4,5\)"):
        devices.choose("NPU", 4)
    with pytest.raises(ConfigError, match=r"device_num=8: only 2 NPU cards .* \(ASCEND_RT_VISIBLE_DEVICES=4,5\)"):
        devices.check_cards("NPU", 8)
    devices.check_cards("NPU", 2)
    devices.check_cards("CPU", 8)  # ranks share a CPU


@pytest.mark.slow
def test_an_npu_has_the_torch_device_that_torch_npu_registers():
    # torch parses "npu" only once a backend has taken that name, which lasts as long as the process.
    script = (
        "import torch, types\n"
        "torch.utils.rename_privateuse1_backend('npu')\n"
        "torch.npu = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 8)\n"
        "from attnet.base import device\n"
        "print(device.choose('auto', 5).torch_device)\n"
    )
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("npu:5", 0), done.stderr


def test_half_precision_of_a_cpu_is_one_its_convolutions_have(monkeypatch):
    half = KINDS["CPU"]().half_dtype
    weight = torch.randn(4, 3, 3, 3, dtype=half, requires_grad=True)
    F.conv2d(torch.ones(2, 3, 8, 8, dtype=half), weight).float().square().mean().backward()
    assert weight.grad.dtype == half and weight.grad.isfinite().all()
    for has_float16, expected in ((True, (torch.bfloat16, torch.float16)), (False, (torch.bfloat16,))):
        monkeypatch.setattr(devices.host, "has_float16_convolution", lambda has=has_float16: has)
        assert (KINDS["CPU"]().half_types, KINDS["CPU"]().half_dtype) == (expected, torch.bfloat16)
        assert KINDS["GPU"]().half_dtype == torch.float16


@pytest.mark.parametrize(
    ("has", "level", "supported", "found"),
    [
        ({"avx512_bf16": True}, "AVX512", True, "avx512_bf16"),
        ({"avx512_bf16": True, "amx_bf16": True}, "AVX512", True, "AMX"),
        ({"bf16": True}, "DEFAULT", True, "Arm's bf16"),
        ({"avx512_bf16": False, "avx512_f": True}, "AVX512", True, ""),  # it would be emulated
        ({"avx512_bf16": True}, "AVX2", True, ""),  # held down to older instructions
        ({"bf16": True}, "DEFAULT", False, ""),  # no convolutions for it in this torch
        ({}, "DEFAULT", True, ""),
    ],
)
def test_a_cpu_takes_half_precision_where_it_computes_it_itself(monkeypatch, has, level, supported, found):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    assert devices.host.native_bfloat16() == found
    usual, why = KINDS["CPU"]().usual_level
    assert usual == ("O2" if found else "O0") and found in why


def test_a_torch_without_the_question_has_no_native_half_precision(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert devices.host.native_bfloat16() == ""


def test_seeding_covers_python_numpy_and_torch():
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.random(), torch.rand(()).item()

    draws = []
    for seed in (2**32 - 1, 2**32 - 1, 1):
        devices.seed_everything(seed)
        draws.append(draw())
    assert draws[0] == draws[1]
    assert all(a != b for a, b in zip(draws[1], draws[2], strict=True))


# What only device.py may say: torch's modules and names of device types, and what belongs to one of them alone. host.py
# writes down versions for records, CUDA's among them.
KNOWING = ("attnet/base/device.py", "attnet/base/host.py")
OF_ONE_TYPE = {"cuda", "npu", "mps", "xpu", "cudnn", "is_cuda", "is_npu", "pin_memory"}
NAMES = {"cuda", "npu", "mps", "hccl", "nccl"}


def mentions_of_device_types(source: str) -> list[str]:
    """Code (not words in texts) that names a device type, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        imported = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.Attribute) and node.attr in OF_ONE_TYPE:
            found.append(f"{node.lineno}: .{node.attr}")
        elif isinstance(node, ast.Constant) and node.value in NAMES:
            found.append(f"{node.lineno}: {node.value!r}")
        elif {"torch_npu", "npu", "cuda", "mps"} & {part for name in imported for part in name.split(".")}:
            found.append(f"{node.lineno}: import of {imported}")
    return found


def test_no_other_file_knows_a_device_type():
    files = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "attnet").rglob("*.py"))}
    found = {
        name: mentions
        for name, path in files.items()
        if name not in KNOWING and (mentions := mentions_of_device_types(path.read_text(encoding="utf-8")))
    }
    assert found == {}, "device types belong in attnet/base/device.py alone"


def test_a_notebook_knows_no_device_type_either():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                assert mentions_of_device_types("".join(cell["source"])) == [], path.name


@pytest.mark.parametrize(
    "code",
    ["torch.cuda.synchronize()", "x = torch.npu", 'torch.device("npu", 0)', "import torch_npu", "images.is_cuda"],
)
def test_what_names_a_device_type_is_found(code):
    assert len(mentions_of_device_types(f"import torch\n{code}")) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process inherits its parent's peak")
def test_peak_memory_is_the_process_own():
    ballast = bytearray(2**28)
    ballast[:: 2**12] = b"x" * len(ballast[:: 2**12])
    code = "from attnet.base.host import process_memory; print(process_memory().peak)"
    child = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert child < len(ballast) < KINDS["CPU"]().memory().peak


@pytest.mark.parametrize(("kind", "tried"), [("GPU", True), ("CPU", False)])
def test_convolutions_are_tried_out_on_cuda_while_working_and_no_longer(kind, tried):
    before = torch.backends.cudnn.benchmark
    with pytest.raises(KeyError), KINDS[kind]().working():
        assert torch.backends.cudnn.benchmark is tried
        raise KeyError
    assert torch.backends.cudnn.benchmark is before
