"""One value of a parameter, from Python, a notebook, the command line or JSON: brought into its type and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from attnet.errors import ConfigError


def checked(spec: dataclasses.Field, kinds: tuple[type, ...], value: object) -> object:
    """The value of a parameter in one of its types, `kinds`, by the rules in its metadata (see `attnet.config`).

    Raises:
        ConfigError: naming the parameter, the value and what is needed.
    """
    rules = spec.metadata
    if value is None and spec.default is None:
        return None
    if rules["counts"]:
        return _counts(spec.name, value)
    if rules["true"] and (switch := _converted(value, bool)) is not None:
        return rules["true"] if switch else "off"
    converted = next((c for c in (_converted(value, kind) for kind in kinds) if c is not None), None)
    low, high = rules["low"], rules["high"]
    number = isinstance(converted, int | float) and not isinstance(converted, bool)
    if converted is None or (float in kinds and isinstance(converted, str) and converted != "dynamic"):
        raise ConfigError(f"{spec.name}={value!r}: {_rule(kinds, rules)} is needed ({rules['help']})")
    if number and not ((low is None or converted >= low) and (high is None or converted <= high)):
        raise ConfigError(f"{spec.name}={value!r}: {_rule(kinds, rules)} is needed ({rules['help']})")
    if rules["choices"]:
        match = next((c for c in rules["choices"] if c.lower() == str(converted).lower()), None)
        if match is None:
            raise ConfigError(f"{spec.name}={value!r}: choose one of {', '.join(rules['choices'])}")
        return match
    return converted


def _counts(name: str, value: object) -> str:
    """ "1,2,3" from itself or from a sequence of whole numbers."""
    parts = value if isinstance(value, list | tuple) else str(value).strip("()[] ").split(",")
    counts = [_converted(part, int) for part in parts]
    if None in counts:
        raise ConfigError(f"{name}={value!r}: whole numbers with commas between are needed, as 1,2,3")
    return ",".join(map(str, counts))


def _converted(value: object, kind: type) -> object | None:
    """`value` as `kind` when nothing is lost by it: "3" and 3 are whole numbers, 3.5 and True are not."""
    text = str(value).strip()
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


def _rule(kinds: tuple[type, ...], rules: Mapping[str, object]) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    low, high = rules["low"], rules["high"]
    bounds = [f"at least {low}"] if low is not None else []
    bounds += [f"at most {high}"] if high is not None else []
    other = ' or "dynamic"' if float in kinds and str in kinds else ""
    return " ".join([names[kinds[0]], *([" and ".join(bounds)] if bounds else [])]) + other
