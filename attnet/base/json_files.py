"""JSON files: read with every word checked, written so that others can read them.

Whoever wrote a file, it may be damaged, another's, or meant badly: what comes out of here is of the wanted form, or an
error that names the file. Reading one runs nothing.
"""

from __future__ import annotations

import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attnet.base.errors import AttnetError

_MOST = 32 << 20  # bytes, of which Python makes up to twenty times as much; the largest of ours has a megabyte
_DEPTH = 100


class JsonError(AttnetError):
    """A JSON file that cannot be read, or is not of the form that it should have."""


Pairs = Callable[[list[tuple[str, object]]], object]


def parse(text: str | bytes, pairs: Pairs = dict, odd: Callable[[str], object] = lambda _: None) -> object:
    """The value of a JSON text: UTF-8, or UTF-16 as Windows writes it, a byte-order mark accepted.

    Args:
        pairs: makes an object of its names and values.
        odd: makes something of a number that is none (NaN, Infinity, 1e999); by default None.

    Raises:
        JsonError: no JSON, or nested deeper than anything of ours.
    """
    try:
        text = text.decode(json.detect_encoding(text)) if isinstance(text, bytes) else text.removeprefix("\ufeff")
        hooks = {"parse_constant": odd, "parse_float": functools.partial(_number, odd=odd), "object_pairs_hook": pairs}
        value = json.loads(text, **hooks)
    except RecursionError:
        raise JsonError("nested too deeply") from None
    except AttnetError:
        raise
    except ValueError as error:  # UnicodeDecodeError is one, and an integer of too many digits
        raise JsonError(f"no JSON ({error})") from None
    if _depth_exceeds(value, _DEPTH):
        raise JsonError("nested too deeply")
    return value


def read_object(file: Path, form: type | Mapping[str, object] = types.MappingProxyType({})) -> dict[str, object]:
    """The object that a JSON file holds.

    Args:
        form: a dataclass, or name -> type, whose entries must have their types where they are there.

    Raises:
        JsonError: naming the file: missing, unreadable, damaged, no object, or an entry of another type.
    """
    content = _read(file, parse)
    if not isinstance(content, dict):
        raise JsonError(f"{file}: holds {_kind(content)} where an object is needed; {_MEND}")
    if problem := misfit(content, form):
        raise JsonError(f"{file}: {problem}; {_MEND}")
    return content


def read_value(file: Path, pairs: Pairs = dict, odd: Callable[[str], object] = lambda _: None) -> object:
    """Whatever a JSON file holds; `pairs` and `odd` as for `parse`, errors as `read_object`."""
    return _read(file, lambda blob: parse(blob, pairs, odd))


def read_lines(file: Path, form: Mapping[str, object], needed: Sequence[str] = ()) -> list[dict[str, object]]:
    """The objects of a file with one a line; JsonError as `read_object`, and where one lacks what is `needed`."""
    rows = _read(file, lambda blob: [parse(line) for line in blob.splitlines() if line.strip()])
    for number, row in enumerate(rows, 1):
        lacking = [name for name in needed if name not in row] if isinstance(row, dict) else []
        problem = misfit(row, form) if isinstance(row, dict) else f"is {_kind(row)} where an object is needed"
        problem = f"lacks {', '.join(lacking)}" if lacking else problem
        if problem:
            raise JsonError(f"{file}: line {number}: {problem}; {_MEND}")
    return rows


def misfit(content: Mapping[str, object], form: type | Mapping[str, object]) -> str:
    """What is wrong with the first entry that has another type than `form` says; "" where nothing is."""
    hints = dict(form) if isinstance(form, Mapping) else typing.get_type_hints(form)
    for name, value in content.items():
        if name in hints and not fits(value, hints[name]):
            wanted = getattr(hints[name], "__name__", None) if isinstance(hints[name], type) else None
            return f"{name} is {_kind(value)} where {wanted or hints[name]} is needed"
    return ""


def fits(value: object, hint: object) -> bool:
    """Whether a JSON value has a type: plain, a union, `list[T]`, `dict[str, T]`; whole numbers are floats, too."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, part) for part in arguments)
    if origin is list:
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, arguments[1]) for item in value.values())
    if hint in (int, float):
        number = isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
        return number and abs(value) <= 2**63
    return value is None if hint in (None, type(None)) else hint is object or isinstance(value, hint)


def to_json(content: object, **options: object) -> str:
    """JSON text of plain values; a number that is none is null, since JSON knows neither NaN nor infinity."""
    return json.dumps(_finite(content), allow_nan=False, **options)


# -- inside ----------------------------------------------------------------------------------------------------------

_MEND = "mend it, restore it from a copy, or take it away"


def _read(file: Path, read: Callable[[bytes], typing.Any]) -> typing.Any:
    try:
        if not file.is_file():
            raise JsonError("no such file" if not file.exists() else "is no file")
        if (size := file.stat().st_size) > _MOST:
            raise JsonError(f"{size:,} bytes, more than {_MOST:,}")
        return read(file.read_bytes())
    except OSError as error:
        raise JsonError(f"{file}: cannot be read ({error.strerror})") from None
    except JsonError as error:
        raise JsonError(f"{file}: cannot be read: {error}; {_MEND}") from None


def _number(text: str, odd: Callable[[str], object]) -> object:
    number = float(text)
    return number if math.isfinite(number) else odd(text)


def _depth_exceeds(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list) or not value:
        return False
    items = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_depth_exceeds(item, depth - 1) for item in items)


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
