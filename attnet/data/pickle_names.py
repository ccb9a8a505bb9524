"""What a pickle of data may name, and what is made of it: arrays of numbers, by constructors of our own.

A shape, a type of a short list, and exactly as many bytes as they need; no callable of numpy's or of anybody else's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from attnet.base.errors import DataError

# Types of arrays and numbers by numpy's codes.
_TYPES = {"b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f4", "f8"}
_DIMENSIONS = 4
_EMPTY = 1 << 24  # the longest side of an array of nothing


RULE = "only numpy arrays, lists, numbers and text are read: do not trust this file"


@dataclass(frozen=True)
class Name:
    """Something that a pickle may name, since numpy's arrays are written with it: it is never looked up."""

    module: str
    name: str


@dataclass
class Type:
    """A numpy type: its code, then, once the pickle has said it, with the byte order."""

    code: str

    def complete(self, state: object) -> None:
        order = _text(state[1]) if type(state) is tuple and len(state) == 8 else ""
        rest = (None, None, None, -1, -1, 0)
        if order not in ("<", ">", "|", "=") or state[0] != 3 or state[2:] != rest:
            raise DataError(f"holds a numpy type of a form that data sets do not need; {RULE}")
        self.code = order.replace("|", "") + self.code.lstrip("<>=")

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(self.code)


@dataclass
class Array:
    """An array that the pickle begins, and fills later on."""

    values: np.ndarray | None = field(default=None, compare=False)


KNOWN = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and numpy 2
    KNOWN |= {(f"{_core}.multiarray", "_reconstruct"), (f"{_core}.multiarray", "scalar")}
    KNOWN |= {(f"{_core}.numeric", "_frombuffer")}
KNOWN |= {("__builtin__", "bytes"), ("builtins", "bytes"), ("collections", "OrderedDict")}


def _text(value: object) -> str:
    return value.decode("latin1") if type(value) is bytes else value if type(value) is str else ""


def _begin(kind: object, shape: object, code: object) -> Array:
    """In place of numpy's `_reconstruct`."""
    if kind != Name("numpy", "ndarray") or shape != (0,) or _text(code) != "b":
        raise DataError(f"begins an array of another kind; {RULE}")
    return Array()


def _type(code: object, align: object = False, copy: object = True) -> Type:
    """In place of `numpy.dtype`."""
    if _text(code) not in _TYPES or align not in (0, 1) or copy not in (0, 1):
        raise DataError(f"holds values of type {_text(code) or type(code).__name__!r:.40}; arrays of numbers are read")
    return Type(_text(code))


def array(buffer: object, kind: object, shape: object, order: object) -> np.ndarray:
    """An array over exactly the bytes that its shape and type need; in place of numpy's `_frombuffer`, too."""
    if type(kind) is not Type or type(buffer) not in (bytes, memoryview):
        raise DataError(f"fills an array with a {type(buffer).__name__}; arrays of numbers are read")
    sizes = shape if type(shape) is tuple else (shape,)
    most = len(buffer) or _EMPTY
    if len(sizes) > _DIMENSIONS or any(type(size) is not int or not 0 <= size <= most for size in sizes):
        raise DataError(f"holds an array of a shape that its {len(buffer):,} bytes cannot have")
    if math.prod(sizes) * kind.numpy.itemsize != len(buffer) or order not in ("C", "F"):
        raise DataError(f"holds an array of shape {sizes} and type {kind.numpy} in {len(buffer):,} bytes")
    return np.frombuffer(buffer, kind.numpy).reshape(sizes, order=order) if len(buffer) else np.empty(sizes, kind.numpy)


def _scalar(kind: object, buffer: object) -> int | float | bool:
    """A number that numpy wrote, as Python's own."""
    return array(buffer, kind, (), "C").item()


def _encode(text: object, encoding: object) -> bytes:
    """In place of `_codecs.encode`, by which Python 3 writes bytes for Python 2."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise DataError(f"encodes a {type(text).__name__}; {RULE}")
    return text.encode("latin1")


MAKERS: dict[str, Callable[..., object]] = {
    "_reconstruct": _begin,
    "dtype": _type,
    "_frombuffer": array,
    "scalar": _scalar,
    "encode": _encode,
    "OrderedDict": lambda: {},  # a dict is in order anyway
    "bytes": lambda: b"",  # how Python 3 writes no bytes at all for Python 2
}
