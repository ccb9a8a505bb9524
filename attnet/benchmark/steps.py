"""The sweep: how fast a training step is over a grid of configurations, where its time goes, how near the ceilings.

Every configuration runs in a process of its own. On a CPU these processes live at the same time, as many as memory
allows, and take turns step by step, so that the machine's moods meet all; on an accelerator they run one after the
other, since they would share its memory. Several cards are a short whole run of `attnet train`.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from attnet.base import device as devices
from attnet.base.errors import AttnetError, ConfigError
from attnet.base.files.paths import resolve_path
from attnet.base.host import environment
from attnet.benchmark.ceilings import ceilings_apart
from attnet.benchmark.counts import StepCounts, counts_of, element_size
from attnet.benchmark.loops import Setting, steps_worker
from attnet.benchmark.worker import Worker, say, short_run
from attnet.data.registry import find_dataset
from attnet.engine.loop import WARM_UP_STEPS
from attnet.engine.parameters import TrainConfig
from attnet.engine.precision import LEVELS
from attnet.model.variants import variants

WHAT = "training steps of a grid of configurations, each in a process of its own; bytes are the floor"
DATA_PATH = "data/cifar-10-batches-py"
MEMORY_FORMATS = ("channels_last", "contiguous")
WARM_UP = {False: 1, True: 10}  # steps after the first that are not measured, on a CPU and on an accelerator
# Of a process on a CPU: bytes besides the maps of a step, and what a step takes for each byte of maps.
BASE_MEMORY, MEMORY_FACTOR = 2**30, 1.5
RUN_TEST_IMAGES = 100
EPOCH_TRAIN, EPOCH_TEST = 50_000, 10_000  # images of an epoch of CIFAR-10

Row = dict[str, object]


def grid(
    models: Sequence[str],
    batch_sizes: Sequence[int],
    amps: Sequence[str],
    memory_formats: Sequence[str],
    compiles: Sequence[str],
    device_nums: Sequence[int],
) -> list[Setting]:
    """Every combination once, the last list varying fastest; checked before anything starts.

    Raises:
        ConfigError: a value that is none of the parameter's.
    """
    for name, values, known in (("memory_format", memory_formats, MEMORY_FORMATS), ("model", models, variants())):
        for value in values:
            if value not in known:
                raise ConfigError(f"{name}={value!r}: choose from {', '.join(known)}")
    if "auto" in amps:
        raise ConfigError(f"amp='auto': name the opt levels to measure, from {', '.join(LEVELS)}")
    if "auto" in compiles:
        raise ConfigError("compile='auto': name the ways to measure, from off, on, graphs, both")
    settings = []
    for model, batch_size, amp, name, compiled, cards in itertools.product(
        models, batch_sizes, amps, memory_formats, compiles, device_nums
    ):
        # It raises for what is none of their values, and knows other spellings of those that are.
        config = TrainConfig(train_batch_size=batch_size, amp=amp, compile=compiled, device_num=cards)
        values = (config.train_batch_size, config.amp, name == "channels_last", config.compile, config.device_num)
        settings.append(Setting(model, *values))
    return list(dict.fromkeys(settings))


def usual_format(device_type: str) -> str:
    """The memory format that training takes on a device."""
    is_last = devices.choose(device_type).memory_format == torch.channels_last
    return "channels_last" if is_last else "contiguous"


@dataclass(frozen=True)
class Way:
    """How a sweep measures.

    `rounds`: measured steps of each configuration, and as many measured part by part. `test_images`: pictures of a
    test; 0: 10,000 on an accelerator, 500 on a CPU. `data_path`: CIFAR-10 for the runs on several cards; without it
    they take the embedded pictures.
    """

    device_type: str = "auto"
    rounds: int = 9
    test_images: int = 0
    data_path: str = DATA_PATH


def sweep(
    settings: Sequence[Setting],
    way: Way,
    known: Mapping[str, Any] | None = None,
    save: Callable[[dict[str, object]], None] = lambda figures: None,
) -> dict[str, object]:
    """Measure every configuration; a line each goes to standard error when it is done.

    Args:
        settings: as `grid` makes them.
        way: how they are measured.
        known: a result to go on with: its rows stay, and configurations that have one are not measured again.
        save: called with the figures so far after each configuration, or group of them.

    Returns:
        "rows" in the order of the configurations, "ceilings" and "rounds", ready for JSON. A configuration that fails
        has a row with "error".

    Raises:
        ConfigError: `known` of another kind, device or torch.
    """
    device = devices.choose(way.device_type)
    rows = {} if known is None else _known_rows(known, environment(device))
    half = any(setting.amp != "O0" for setting in settings)
    ceilings = known["ceilings"] if known is not None else ceilings_apart(way.device_type, half)
    if half and set(ceilings["matmul_flops_per_second"]) == {"float32"}:
        ceilings = ceilings_apart(way.device_type, half)  # what is known was measured in float32 alone
    order = list(dict.fromkeys([*settings, *rows]))

    def figures() -> dict[str, object]:
        found = [rows[setting] for setting in order if setting in rows]
        return {"rows": found, "ceilings": ceilings, "rounds": way.rounds}

    for group in _groups([s for s in settings if s not in rows], together=not device.is_accelerator):
        for setting, found in _measure(group, way):
            rows[setting] = setting.to_dict() | found if "error" in found else make_row(setting, found, ceilings)
            say(f"{len(rows)} of {len(order)}: {setting}: {_in_short(rows[setting])}")
        save(figures())
    return figures()


def _known_rows(known: Mapping[str, Any], environment: Mapping[str, object]) -> dict[Setting, Row]:
    if known.get("kind") != "steps":
        raise ConfigError(f"a result of kind {known.get('kind')!r} cannot be gone on with; give that of a sweep")
    for name in ("device", "torch"):
        if known["environment"].get(name) != environment[name]:
            raise ConfigError(
                f"the sweep to go on with was measured with {name} {known['environment'].get(name)}, this is "
                f"{environment[name]}: give another output, or measure all of it here"
            )
    return {Setting.of(row): row for row in known["rows"]}


def _in_short(row: Row) -> str:
    if "error" in row:
        return f"failed: {row['error']}"
    return f"{row['images_per_second']:,.1f} images/s, {row['peak_memory_bytes'] / 1e9:.2f} GB"


# -- which at the same time ----------------------------------------------------------------------------------------


def _groups(settings: Sequence[Setting], together: bool) -> list[list[Setting]]:
    """Configurations that are measured in turn: each alone, or as many as memory is there for."""
    limit, groups, used = available_memory() if together else 0, [], 0.0
    for setting in settings:
        need = memory_need(setting)
        fits = together and setting.device_num == 1 and groups and groups[-1][0].device_num == 1
        if fits and used + need <= limit:
            groups[-1].append(setting)
            used += need
        else:
            groups.append([setting])
            used = need
    return groups


def memory_need(setting: Setting) -> float:
    """About how many bytes a process on a CPU takes for such steps."""
    return BASE_MEMORY + MEMORY_FACTOR * 4 * setting.batch_size * counts_of(setting.model).stored


def available_memory() -> int:
    """Bytes that processes can still have; where the system does not tell, none, so that one runs at a time."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0


# -- measuring -----------------------------------------------------------------------------------------------------


def _measure(group: Sequence[Setting], way: Way) -> Iterator[tuple[Setting, dict[str, Any]]]:
    """What is found of each configuration of a group, or `{"error": ...}`."""
    found: dict[Setting, dict[str, Any]] = {setting: {} for setting in group}
    if group[0].device_num > 1:
        with _noted(found[group[0]]):
            found[group[0]] |= _run(group[0], way)
        yield from found.items()
        return
    workers: dict[Setting, Worker] = {}
    warm_up = WARM_UP[devices.choose(way.device_type).is_accelerator]
    with contextlib.ExitStack() as stack:
        for setting in group:
            with _noted(found[setting]):
                worker = steps_worker(setting, way.device_type, warm_up=warm_up, test_images=way.test_images)
                workers[setting] = stack.enter_context(worker)
                found[setting] |= worker.ready | {"step": [], "parts": []}
        for what in [*["step", "parts"] * way.rounds, "peak", "evaluation"]:
            for setting in (setting for setting in group if "error" not in found[setting]):
                with _noted(found[setting]):
                    answer = workers[setting].ask(what=what)["answer"]
                    found[setting][what] = [*found[setting][what], answer] if what in ("step", "parts") else answer
    yield from found.items()


@contextlib.contextmanager
def _noted(found: dict[str, Any]) -> Iterator[None]:
    """A failure becomes "error", and nothing else is kept."""
    try:
        yield
    except AttnetError as error:
        found.clear()
        found["error"] = str(error)


def _run(setting: Setting, way: Way) -> dict[str, Any]:
    """A run on several cards, of as many steps as are warm-up and measured; its FPS as the engine counts it."""
    images = setting.batch_size * setting.device_num
    given = setting.to_dict() | {"train_batch_size": setting.batch_size}
    del given["batch_size"]
    run = short_run(
        **given,
        device_type=way.device_type,
        dataset="cifar10" if find_dataset(resolve_path(way.data_path), "cifar10") else "shapes",
        data_path=way.data_path,
        train_images=images * (WARM_UP_STEPS + way.rounds),
        test_images=RUN_TEST_IMAGES,
    )
    return {"step": [images / run["metrics"]["fps"]], "peak": run["peak_memory"]}


# -- the figures that follow -----------------------------------------------------------------------------------------


def make_row(setting: Setting, found: Mapping[str, Any], ceilings: Mapping[str, Any]) -> Row:
    """The row of the result: speed, and how near it comes to the ceilings; of a run on several cards no more.

    `share_of_ceiling` is images_per_second / device_num over `ceiling`; a batch small enough for the caches can come
    out above 1. `evaluation_share` is that of testing in an epoch of 50,000 training and 10,000 test images.
    """
    counts, step = counts_of(setting.model), spread(found["step"])
    speed = setting.batch_size * setting.device_num / step["median"]
    each = speed / setting.device_num
    moved = counts.floor_bytes(setting.batch_size, element_size(setting.amp))
    row = setting.to_dict() | {
        "step_seconds": step | {"all": list(found["step"])},
        "images_per_second": speed,
        "flops_per_image": counts.flops,
        "bytes_per_image": moved,
        "flops_per_second": counts.flops * each,
        "bytes_per_second": moved * each,
        "share_of_ceiling": each / ceiling(counts, setting, ceilings),
        "peak_memory_bytes": int(found["peak"]),
    }
    if "parts" not in found:
        return row
    parts = found["parts"]
    training, testing = EPOCH_TRAIN / speed, EPOCH_TEST / found["evaluation"]
    return row | {
        "first_step_seconds": found["first_step_seconds"],
        "shares": {name: statistics.median(part[name] for part in parts) for name in parts[0]},
        "evaluation_images_per_second": found["evaluation"],
        "evaluation_share": testing / (training + testing),
    }


def ceiling(counts: StepCounts, setting: Setting, ceilings: Mapping[str, Any]) -> float:
    """Images per second of a card that either moves or computes as fast as was measured, whichever takes longer:
    in float32 at O0, in the half type else."""
    peaks = ceilings["matmul_flops_per_second"]
    peak = next(value for name, value in peaks.items() if (name == "float32") == (setting.amp == "O0"))
    moved = counts.floor_bytes(setting.batch_size, element_size(setting.amp))
    return min(ceilings["copy_bytes_per_second"] / moved, peak / counts.flops)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
