"""Configurations by name: every combination of some values, or a list from a file."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnet.base.errors import ConfigError, shown
from attnet.base.files.paths import resolve_path
from attnet.base.json_files import JsonError, read_value
from attnet.base.values import facts
from attnet.engine.hooks.names import is_own_hook
from attnet.engine.parameters import TrainConfig
from attnet.model.units import is_own_code
from attnet.study.sweeps.runs import content_hash

BASE = "base"  # the name of a configuration that changes nothing
# Parameters that a sweep gives to each run itself, and what the user gives instead.
OWN = {name: facts(spec).sweep for name, spec in TrainConfig.fields().items() if facts(spec).sweep is not None}


def grid(base: TrainConfig, /, **values: Sequence[object]) -> dict[str, TrainConfig]:
    """`base` with every combination of the values, by name: "lr=0.1 model=attention92". The last one changes fastest.

    Raises:
        ConfigError: no value, an unknown parameter, a value out of range, one that a sweep gives itself, or two
            combinations that train the same.
    """
    for name, choices in values.items():
        if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
            raise ConfigError(f"grid: {name}={choices!r}: a list of values is needed, as {name}=({choices!r},)")
    combinations = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
    return _named([("", changes) for changes in combinations], base, "grid")


def read_list(file: str | Path, base: TrainConfig) -> dict[str, TrainConfig]:
    """The configurations of a JSON file, each as what it changes of `base`.

    The file holds {"name": {parameter: value, …}, …}, or [{parameter: value, …}, …], whose names are made of the
    parameters as `grid`'s are. A relative path starts at the repository root.

    Raises:
        ConfigError: no such file, not of that form, a name or a configuration twice, a unit outside this package that
            `base` has not (code is not run because a file names it), or as `grid`.
    """
    path = resolve_path(file)
    try:
        content = read_value(path, _without_repeats, _no_number)
    except JsonError as error:
        raise ConfigError(f"list={error}") from None
    entries = list(content.items()) if isinstance(content, dict) else [("", entry) for entry in _sequence(content)]
    if not entries or not all(isinstance(changes, dict) for _, changes in entries):
        raise ConfigError(
            f'list={path}: {{"name": {{"lr": 0.1, …}}, …}} or [{{"lr": 0.1, …}}, …] is needed, with one '
            "configuration at least"
        )
    for name, changes in entries:
        unit = changes.get("unit")
        if isinstance(unit, str) and is_own_code(unit) and unit != base.unit:
            raise ConfigError(
                f"list={path}{name and ', '}{name}: unit={shown(unit)} is no part of attnet, and code is not run "
                f"because a file names it; if you trust it, give --unit {shown(unit)} yourself"
            )
    if own := [changes["log"] for _, changes in entries if is_own_hook(str(changes.get("log", "")))]:
        raise ConfigError(f"list={path}: log={own[0]!r}: code is not run because a file names it; give --log yourself")
    return _named(entries, base, f"list={path}")


def _named(
    entries: Sequence[tuple[str, Mapping[str, object]]], base: TrainConfig, where: str
) -> dict[str, TrainConfig]:
    """Name -> configuration; an empty name is made of what is changed. `where` begins the messages."""
    found: dict[str, TrainConfig] = {}
    same: dict[str, str] = {}  # content hash -> name
    for given, changes in entries:
        try:
            refuse_own(changes)
            config = base.replace(**changes)
        except ConfigError as error:
            raise ConfigError(f"{where}, {given or changes}: {error}") from None
        name = given or name_of({key: getattr(config, key) for key in changes})
        if name in found:
            raise ConfigError(f"{where}: two configurations are called {name!r}; name them yourself in a list")
        twin = same.setdefault(content_hash(config), name)
        if twin != name:
            raise ConfigError(f"{where}: {twin!r} and {name!r} train the same; leave one of them out")
        found[name] = config
    return found


def name_of(changes: Mapping[str, object]) -> str:
    """ "lr=0.1 modules=1,2,3", fit for a folder."""
    text = " ".join(f"{key}={value}" for key, value in changes.items())
    return re.sub(r"[^\w .,=+-]+", "-", text).rstrip(".,= ") or BASE


def refuse_own(changes: Mapping[str, object]) -> None:
    """ConfigError for a parameter that a sweep gives to each run itself."""
    for name, instead in OWN.items():
        if name in changes:
            hint = f"give {instead} of the sweep" if instead else "leave it out"
            raise ConfigError(f"{name}={changes[name]!r}: a sweep gives each run its own; {hint}")


def _sequence(content: object) -> list:
    return content if isinstance(content, list) else []


def _without_repeats(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """JSON keeps the last of two equal keys, and the first one would be missing without a word."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise JsonError(f"{shown(Counter(names).most_common(1)[0][0])} stands there twice")
    return content


def _no_number(text: str) -> None:
    """A value that is none would be taken for one that was not given, and the run would be another than was meant."""
    raise JsonError(f"{shown(text)} is no number")
