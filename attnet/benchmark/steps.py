"""The sweep: how fast a training step is over a grid of configurations, where its time goes, how near the ceilings.

    from attnet.benchmark.steps import sweep
    result = sweep(models=["attention92"], batch_sizes=[32, 128], amps=["O0", "O2"], rounds=5)

Every configuration runs in a process of its own. On a CPU these processes live at the same time, as many as memory
allows, and take turns step by step, so that the machine's moods meet all; on an accelerator they run one after the
other, since they would share its memory. Several cards are a short whole run of `attnet train`.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from attnet.base import device as devices
from attnet.base.errors import AttnetError, ConfigError
from attnet.base.files import relative_to_root, resolve_path
from attnet.benchmark.counts import counts_of
from attnet.benchmark.grid import Setting, grid, reference_settings, usual_formats
from attnet.benchmark.loops import ceilings_apart, steps_worker
from attnet.benchmark.ranks import short_run
from attnet.benchmark.rows import Row, evaluation_figures, part_figures, speed_row
from attnet.benchmark.worker import Worker, say
from attnet.data.registry import find_dataset
from attnet.engine.loop import WARM_UP_STEPS

DATA_PATH = "data/cifar-10-batches-py"
WARM_UP = {False: 1, True: 10}  # steps after the first that are not measured, on a CPU and on an accelerator
# Of a process on a CPU: bytes besides the maps of a step, and what a step takes for each byte of maps.
BASE_MEMORY, MEMORY_FACTOR = 2**30, 1.5
RUN_TEST_IMAGES = 100


def sweep(
    models: Sequence[str] = ("attention92",),
    batch_sizes: Sequence[int] = (64,),
    amps: Sequence[str] = ("O0",),
    memory_formats: Sequence[str] = (),
    compiles: Sequence[str] = ("off",),
    device_nums: Sequence[int] = (1,),
    *,
    device_type: str = "auto",
    rounds: int = 9,
    reference: str | Path | None = None,
    test_images: int = 0,
    data_path: str = DATA_PATH,
    known: Mapping[str, Any] | None = None,
    save: Callable[[dict[str, object]], None] | None = None,
) -> dict[str, object]:
    """Measure every combination of the lists; a line a configuration goes to standard error when it is done.

    Args:
        models, batch_sizes (a card), amps, compiles, device_nums: values of the parameters of `TrainConfig`.
        memory_formats: "channels_last", "contiguous"; empty: the one that training takes on the device.
        device_type: as `TrainConfig`.
        rounds: measured steps of each configuration, and as many measured part by part.
        reference: inner folder of a copy of the reference repository; its own network and loop are measured at each
            batch size as well, in rows whose "implementation" is "reference".
        test_images: pictures of a test; 0: 10,000 on an accelerator, 500 on a CPU.
        data_path: CIFAR-10 for the runs on several cards; without it they take the embedded pictures.
        known: a result to go on with: its rows stay, and configurations that have one are not measured again.
        save: called with the result so far after each configuration, or group of them.

    Returns:
        The result, ready for JSON: "rows" in the order of the lists, "ceilings", "environment" and the command that
        gives the same. A configuration that fails has a row with "error".

    Raises:
        ConfigError: a value that is none of the parameter's, no network in `reference`, or `known` of another kind,
            device or torch.
    """
    memory_formats = memory_formats or usual_formats(device_type)
    settings = grid(models, batch_sizes, amps, memory_formats, compiles, device_nums)
    if rounds < 1:
        raise ConfigError(f"rounds={rounds}: at least 1 is needed")
    if reference is not None:
        reference = resolve_path(reference)
        if not (reference / "model").is_dir():
            raise ConfigError(f"reference={reference}: no folder model/ there; give the inner folder of a copy")
        settings += reference_settings(batch_sizes)
    device = devices.choose(device_type)
    lists = dict(model=models, batch_size=batch_sizes, amp=amps, memory_format=memory_formats, compile=compiles)
    lists |= {"device_num": device_nums}
    environment = devices.environment(device)
    rows = _known_rows(known, environment)
    ceilings = known["ceilings"] if known else ceilings_apart(device_type)
    order = list(dict.fromkeys([*settings, *rows]))

    def result() -> dict[str, object]:
        return {
            "kind": "steps",
            "what": "training steps of a grid of configurations, each in a process of its own; bytes are the floor",
            "rows": [rows[setting] for setting in order if setting in rows],
            "ceilings": ceilings,
            "rounds": rounds,
            "environment": environment,
            "date": date.today().isoformat(),
            "command": _command(lists, device_type, rounds, reference, test_images),
        }

    for group in _groups([s for s in settings if s not in rows], together=not device.is_accelerator):
        for setting, found in _measure(group, device_type, rounds, reference, test_images, data_path):
            rows[setting] = setting.to_dict() | found if "error" in found else _row(setting, found, ceilings)
            say(f"{len(rows)} of {len(order)}: {setting}: {_in_short(rows[setting])}")
        if save is not None:
            save(result())
    return result()


def _command(
    lists: Mapping[str, Sequence[object]], device_type: str, rounds: int, reference: Path | None, test_images: int
) -> str:
    words = [word for name, values in lists.items() for word in (f"--{name}", ",".join(map(str, values)))]
    words += ["--device_type", device_type, "--rounds", str(rounds)]
    words += ["--reference", relative_to_root(reference)] if reference else []
    words += ["--test_images", str(test_images)] if test_images else []
    return "attnet benchmark --sweep " + shlex.join(words)


def _known_rows(known: Mapping[str, Any] | None, environment: Mapping[str, object]) -> dict[Setting, Row]:
    if known is None:
        return {}
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
        with open("/proc/meminfo") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0


# -- measuring -----------------------------------------------------------------------------------------------------


def _measure(
    group: Sequence[Setting], device_type: str, rounds: int, reference: Path | None, test_images: int, data_path: str
) -> Iterator[tuple[Setting, dict[str, Any]]]:
    """What is found of each configuration of a group, or `{"error": ...}`."""
    found: dict[Setting, dict[str, Any]] = {setting: {} for setting in group}
    if group[0].device_num > 1:
        with _noted(found[group[0]]):
            found[group[0]] |= _run(group[0], device_type, rounds, data_path)
        yield from found.items()
        return
    workers: dict[Setting, Worker] = {}
    warm_up = WARM_UP[devices.choose(device_type).is_accelerator]
    with contextlib.ExitStack() as stack:
        for setting in group:
            with _noted(found[setting]):
                worker = steps_worker(
                    setting, device_type, reference=reference, warm_up=warm_up, test_images=test_images
                )
                workers[setting] = stack.enter_context(worker)
                found[setting] |= worker.ready | {"steps": [], "parts": []}
        questions = [*[("step", "steps"), ("parts", "parts")] * rounds, ("peak", "peak"), ("evaluation", "evaluation")]
        for what, place in questions:
            for setting in group:
                if "error" in found[setting]:
                    continue
                with _noted(found[setting]):
                    answer = workers[setting].ask(what=what)["answer"]
                    if place in ("steps", "parts"):
                        found[setting][place].append(answer)
                    else:
                        found[setting][place] = answer
    yield from found.items()


@contextlib.contextmanager
def _noted(found: dict[str, Any]) -> Iterator[None]:
    """A failure becomes "error", and nothing else is kept."""
    try:
        yield
    except AttnetError as error:
        found.clear()
        found["error"] = str(error)


def _run(setting: Setting, device_type: str, rounds: int, data_path: str) -> dict[str, Any]:
    """A run on several cards, of as many steps as are warm-up and measured; its FPS as the engine counts it."""
    images = setting.batch_size * setting.device_num
    run = short_run(
        model=setting.model,
        train_batch_size=setting.batch_size,
        amp=setting.amp,
        channels_last=setting.channels_last,
        compile=setting.compile,
        device_num=setting.device_num,
        device_type=device_type,
        dataset="cifar10" if find_dataset(resolve_path(data_path), "cifar10") else "shapes",
        data_path=data_path,
        train_images=images * (WARM_UP_STEPS + rounds),
        test_images=RUN_TEST_IMAGES,
        max_restarts=0,
    )
    return {"steps": [images / run["metrics"]["fps"]], "peak": run["peak_memory"]}


def _row(setting: Setting, found: Mapping[str, Any], ceilings: Mapping[str, Any]) -> Row:
    """The row of the result; of a run on several cards, without first step, parts and evaluation."""
    row = speed_row(setting, found["steps"], ceilings) | {"peak_memory_bytes": int(found["peak"])}
    if "parts" in found:
        row |= {"first_step_seconds": found["first_step_seconds"], "shares": part_figures(found["parts"])}
        row |= evaluation_figures(row["images_per_second"], found["evaluation"])
    return row
