"""Out of memory on any device: which parameter, its value, and one that fits and takes the same step."""

from __future__ import annotations

import re

import pytest
import torch

import attnet
from attnet.base.device import KINDS
from attnet.base.errors import ConfigError
from attnet.base.host import Memory, is_out_of_memory
from attnet.engine import evaluation
from attnet.engine.memory import activation_bytes, fitting_batch
from attnet.engine.step import TrainStep

TINY = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"},
    **{"train_images": 64, "test_images": 10, "train_batch_size": 32, "total_epochs": 1, "progress": "none"},
}
SAID = {
    "CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
    "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "NPU": RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 32.00 GiB total capacity)"),
    "MPS": RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
    "numpy": MemoryError("Unable to allocate 64.0 GiB"),
}


@pytest.mark.parametrize("who", SAID)
def test_every_way_to_say_it_is_understood(who):
    assert is_out_of_memory(SAID[who])


@pytest.mark.parametrize("who", ["CPU", "CUDA"])
def test_a_step_without_memory_names_a_batch_that_fits_and_keeps_the_step(monkeypatch, tmp_path, who):
    def exhausted(self: TrainStep, *_: object) -> None:
        raise SAID[who]

    monkeypatch.setattr(TrainStep, "loss", exhausted)
    monkeypatch.setattr(KINDS["CPU"], "memory", lambda self: Memory(0, 0, 80 * 2**20))
    with pytest.raises(ConfigError, match=r"^train_batch_size=32: too many images a step") as told:
        attnet.fit(attnet.TrainConfig(**TINY, accumulate=2, output_dir=tmp_path / "run"))
    found = re.search(r"give train_batch_size=(\d+) and accumulate=(\d+), and the step stays the same", str(told.value))
    batch, accumulate = map(int, found.groups())
    assert batch * accumulate == 32 * 2 and batch == 8  # 56 of 80 MiB at about 6 an image
    assert told.value.__cause__ is SAID[who]


def test_a_test_without_memory(monkeypatch, tmp_path):
    def exhausted(*_: object) -> None:
        raise SAID["CUDA"]

    monkeypatch.setattr(evaluation, "memory_format", lambda model: torch.channels_last)
    model = attnet.build_model("attention56_tiny")
    monkeypatch.setattr(model, "forward", exhausted)
    plan = attnet.make_plan(attnet.TrainConfig(**TINY, test_batch_size=8))
    with pytest.raises(
        ConfigError, match=r"^test_batch_size=8: too many images for the memory; give test_batch_size=4"
    ):
        evaluation.evaluate(model, plan.test_batches(), plan.dataset.classes)


def test_a_real_answer_of_the_machine_is_known_and_other_errors_are_not():
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**50)
    assert is_out_of_memory(real.value)
    with pytest.raises(RuntimeError) as other:
        torch.empty(2, 3) @ torch.empty(2, 3)
    assert not is_out_of_memory(other.value)


def test_what_is_counted_is_what_a_forward_pass_keeps():
    model, kept = attnet.build_model("attention56_tiny"), {}
    weights = sum(p.untyped_storage().nbytes() for p in model.parameters())

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randn(4, 3, 32, 32))
    really = sum(storage.nbytes() for storage in kept.values())
    assert 0 <= really - 4 * activation_bytes(model, 32) <= 1.1 * weights


@pytest.mark.parametrize(
    ("batch", "fits", "found"), [(512, 400, 256), (500, 170, 125), (96, 40, 32), (509, 100, 100), (2, 5, 1), (3, 0, 1)]
)
def test_a_batch_that_fits_divides_the_one_that_was_asked_for(batch, fits, found):
    assert fitting_batch(batch, fits) == found
