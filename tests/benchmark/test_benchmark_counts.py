"""What a step takes is counted right, and what a device can do is measured right."""

import itertools
import time

import pytest
import torch
from torch import nn

from attnet.base.device import KINDS
from attnet.benchmark import ceilings
from attnet.benchmark.counts import count_step, counts_of, element_size
from attnet.model.anatomy import totals
from attnet.model.units import ResidualUnit
from attnet.model.variants import build_model

CPU = KINDS["CPU"]()
TINY = "attention56_tiny"


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


def test_bytes_follow_the_element_and_the_batch():
    counts, larger = counts_of(TINY), counts_of("attention92")
    half, single = element_size("O2"), element_size("O0")
    assert [element_size(amp) for amp in ("O0", "O1", "O2", "O3")] == [4, 2, 2, 2]
    for batch_size in (1, 64):
        assert counts.floor_bytes(batch_size, single) == 2 * counts.floor_bytes(batch_size, half)
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
    assert ceilings.measure_ceilings(CPU)["matmul_flops_per_second"].keys() == {"float32"}  # half would take minutes
    found = ceilings.measure_ceilings(CPU, half=True)
    assert found["copy_bytes_per_second"] > 0
    half = str(CPU.half_dtype).removeprefix("torch.")
    assert set(found["matmul_flops_per_second"]) == {"float32", half}
    assert min(found["matmul_flops_per_second"].values()) > 0
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.slow
def test_ceilings_are_measured_apart():
    found = ceilings.ceilings_apart("CPU")
    assert found["copy_bytes_per_second"] > 1e8
    assert 1e8 < found["matmul_flops_per_second"]["float32"] < 1e15
