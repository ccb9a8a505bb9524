"""What is true of a parameter, and a value from anywhere brought into its type, or refused by a sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from attnet.base.errors import ConfigError, shown
from attnet.base.files.paths import expand_path
from attnet.base.words import names_of, names_text


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is true of a parameter besides its type and default.

    Attributes:
        help: a line for the command line, the notebooks and error messages.
        choices: the only values, if not empty; any case is accepted.
        true: the choice that True means; False then means "off".
        low, high: bounds of a number.
        counts: text as "1,2,3", also given as a list; `low` and `high` are each number's.
        names: text as "a,b", also given as a list or as its JSON text, which names with commas need.
        path: text that names a file or folder; `~` and variables in it are replaced.
        recipe: what it is in the document's recipe, where recipes decide it (its default is None then).
        decides: "always": it decides the result and may not change while a run goes on. "start": it decides the
            result when it is set from the start, and may change later. "never": where and how the run is done.
        here: of this process; a run that is resumed takes the value given now, whatever it was begun with.
        weights: what the record of given weights says is taken where it is left open: "always", "options" (always, if
            the network is the recorded one), or in an "evaluation" alone.
        only_with_weights: it means something with given weights alone.
        sweep: each run of a sweep has its own; the word says what to give the sweep instead, "" nothing.
        also: names under which people know it from elsewhere.
    """

    help: str
    choices: tuple[str, ...] = ()
    true: str = ""
    low: float | None = None
    high: float | None = None
    counts: bool = False
    names: bool = False
    path: bool = False
    recipe: object = None
    decides: str = "always"
    here: bool = False
    weights: str = ""
    only_with_weights: bool = False
    sweep: str | None = None
    also: tuple[str, ...] = ()


def facts(spec: dataclasses.Field) -> Facts:
    """What is true of a parameter."""
    return spec.metadata["facts"]


def checked(spec: dataclasses.Field, kinds: tuple[type, ...], value: object) -> object:
    """The value of a parameter in one of its types, `kinds`, by its facts.

    Raises:
        ConfigError: naming the parameter, the value and what is needed.
    """
    rules = facts(spec)
    if value is None and spec.default is None:
        return None
    if rules.counts and not value == "" == rules.recipe:
        return _counts(spec.name, value, rules)
    if rules.names:
        return names_text(names_of(value, spec.name))
    if rules.true and (switch := _converted(value, bool)) is not None:
        return rules.true if switch else "off"
    if rules.path and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # papermill makes a number of a folder called 2024
    converted = next((c for c in (_converted(value, kind) for kind in kinds) if c is not None), None)
    number = isinstance(converted, int | float) and not isinstance(converted, bool)
    if converted is None or (float in kinds and isinstance(converted, str) and converted != "dynamic"):
        raise ConfigError(f"{spec.name}={shown(value)}: {_rule(kinds, rules)} is needed ({rules.help})")
    if number and not _within(converted, rules):
        raise ConfigError(f"{spec.name}={shown(value)}: {_rule(kinds, rules)} is needed ({rules.help})")
    if isinstance(converted, str) and "\0" in converted:
        raise ConfigError(f"{spec.name}={shown(value)}: text without NUL characters is needed ({rules.help})")
    if rules.choices:
        match = next((c for c in rules.choices if c.lower() == str(converted).lower()), None)
        if match is None:
            raise ConfigError(f"{spec.name}={shown(value)}: choose one of {', '.join(rules.choices)}")
        return match
    return expand_path(converted, spec.name) if rules.path else converted


def _within(number: float, rules: Facts) -> bool:
    return (rules.low is None or number >= rules.low) and (rules.high is None or number <= rules.high)


def _counts(name: str, value: object, rules: Facts) -> str:
    """ "1,2,3" from itself or from a sequence of whole numbers."""
    parts = value if isinstance(value, list | tuple) else _text(value).strip("()[] ").split(",")
    counts = [_converted(part, int) for part in parts]
    if None in counts:
        raise ConfigError(f"{name}={shown(value)}: whole numbers with commas between are needed, as 1,2,3")
    if outside := [count for count in counts if not _within(count, rules)]:
        raise ConfigError(f"{name}={shown(value)}: {shown(outside[0])} is none of {rules.low} to {rules.high}")
    return ",".join(map(str, counts))


def _converted(value: object, kind: type) -> object | None:
    """`value` as `kind` when nothing is lost by it: "3" and 3 are whole numbers, 3.5 and True are not."""
    text = _text(value).strip()
    if kind is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower())
    if isinstance(value, bool):
        return None
    if kind is str:
        return str(value) if isinstance(value, str | Path) else None
    try:
        number = float(text)
        if kind is float:
            return number if number == number and abs(number) != float("inf") else None
        if number != int(number):
            return None
        return int(number) if "." in text or "e" in text.lower() else int(text)  # a float holds 53 bits only
    except (ValueError, OverflowError):
        return None


def _text(value: object) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"


def _rule(kinds: tuple[type, ...], rules: Facts) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    low, high = rules.low, rules.high
    bounds = [f"at least {low}"] if low is not None else []
    bounds += [f"at most {high}"] if high is not None else []
    other = ' or "dynamic"' if float in kinds and str in kinds else ""
    return " ".join([names[kinds[0]], *([" and ".join(bounds)] if bounds else [])]) + other
