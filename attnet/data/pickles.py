"""Reading a pickle of numpy arrays, lists, numbers and text without unpickling it.

A pickle is a program for Python's unpickler, which calls what the program names. Here nothing that a file names is ever
called: its opcodes are walked one by one (their meaning: CPython's `Lib/pickletools.py`, protocols 0 to 5), and what
numpy writes for an array is recognised word for word and built by ourselves (`attnet.data.pickle_names`). Memory stays
in proportion to the file: an opcode makes at most one small object, long bytes are views of the file, and integers have
eight bytes at most.
"""

from __future__ import annotations

import codecs
import pickletools
import struct
from collections.abc import Callable

from attnet.base.errors import DataError
from attnet.data.pickle_names import KNOWN, MAKERS, RULE, Array, Name, Type, array

_OPCODES = 1_000_000  # no honest file of CIFAR has more, not even with a numpy number a label
_LINE = 80  # characters of a number, a module or a name
_SMALL = 1 << 12  # bytes that are copied; more are a view of the file


def read_pickle(blob: bytes) -> object:
    """What a pickle holds: None, bool, int, float, bytes, str, list, tuple, or a dict of these; numpy arrays of numbers
    as itself or as values of that dict.

    Long bytes are memoryviews of `blob`. Strings of Python 2 are bytes.

    Raises:
        DataError: damaged, asking for anything that could run code, or of another kind. The message goes on after the
            name of the file.
    """
    try:
        found = _Machine(blob).run()
        if type(found) is dict:
            return {key: value.values if type(value) is Array else value for key, value in found.items()}
        return found.values if type(found) is Array else found
    except DataError:
        raise
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, struct.error, MemoryError) as error:
        why = f"{type(error).__name__}: {error!s:.100}"  # not its repr, which may hold the whole file
        raise DataError(f"is damaged or cut short ({len(blob):,} bytes; {why})") from error


class _Machine:
    """Walks the opcodes. `stack` holds the values under construction, `marks` where groups of them begin."""

    def __init__(self, blob: bytes) -> None:
        self.blob, self.view, self.place = blob, memoryview(blob), 0
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.copied = 0  # bytes that were made of text: as many as the file has, in an honest one

    def run(self) -> object:
        actions = _ACTIONS
        for _ in range(_OPCODES):
            opcode = self.blob[self.place]
            self.place += 1
            if opcode == 0x2E:  # STOP
                return self.pop()
            action = actions.get(opcode)
            if action is None:
                known = pickletools.code2op.get(chr(opcode))
                if known is None:
                    raise ValueError(f"no opcode {opcode:#04x}")
                raise DataError(f"holds the opcode {known.name}, which no data set needs; {RULE}")
            action(self)
        raise DataError(f"holds more than {_OPCODES:,} values, which no data set needs")

    # -- the bytes -----------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes | memoryview:
        """The next bytes; long ones are not copied."""
        end = self.place + count
        if not 0 <= count <= len(self.blob) - self.place:
            raise ValueError(f"{count:,} bytes are announced, {len(self.blob) - self.place:,} are left")
        taken = self.view[self.place : end] if count > _SMALL else self.blob[self.place : end]
        self.place = end
        return taken

    def number(self, form: str) -> int | float:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self, most: int = _LINE) -> bytes:
        end = self.blob.find(b"\n", self.place, self.place + most)
        if end < 0:
            raise ValueError("a line without an end")
        line, self.place = self.blob[self.place : end], end + 1
        return line

    def counted(self, form: str) -> bytes | memoryview:
        return self.take(self.number(form))

    def text(self, form: str) -> str:
        return str(self.counted(form), "utf-8", "surrogatepass")

    # -- the stack -----------------------------------------------------------------------------------------------

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> object:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise ValueError("a value is missing")
        return self.stack.pop()

    def group(self) -> list[object]:
        """What stands above the last mark."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def last(self, kind: type) -> object:
        if (self.marks and self.marks[-1] >= len(self.stack)) or type(self.stack[-1]) is not kind:
            raise ValueError(f"a {kind.__name__} is missing")
        return self.stack[-1]

    def extend(self, values: list[object]) -> None:
        self.last(list).extend(values)

    def update(self, values: list[object]) -> None:
        if len(values) % 2 or any(type(key) not in (str, bytes, int) for key in values[::2]):
            raise ValueError("a dict whose keys are no text")
        self.last(dict).update(zip(values[::2], values[1::2], strict=True))

    def remember(self, place: int) -> None:
        if self.marks and self.marks[-1] >= len(self.stack):
            raise ValueError("a value is missing")
        self.memo[place] = self.stack[-1]

    # -- what would be calls -------------------------------------------------------------------------------------

    def find(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("a name that is no text")
        if (module, name) not in KNOWN:
            raise DataError(f"asks for {module:.60}.{name:.60}, which could run code; {RULE}")
        self.push(Name(module, name))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if type(function) is not Name or type(arguments) is not tuple:
            raise DataError(f"calls a {type(function).__name__}; {RULE}")
        make = MAKERS.get(function.name)
        if make is None:
            raise DataError(f"calls {function.module}.{function.name}; {RULE}")
        made = make(*arguments)
        self.copied += len(made) if type(made) is bytes else 0
        if self.copied > len(self.blob):
            raise DataError(f"makes more bytes than it has; {RULE}")
        self.push(made)

    def build(self) -> None:
        state, made = self.pop(), self.pop()
        if type(made) is Type:
            made.complete(state)
            self.push(made)
        elif type(made) is Array and type(state) is tuple and len(state) == 5 and state[0] == 1:
            made.values = array(state[4], state[2], state[1], "F" if state[3] else "C")
            self.push(made)
        else:
            raise DataError(f"fills a {type(made).__name__}; {RULE}")


# -- the opcodes ---------------------------------------------------------------------------------------------------


def _integer(size: int) -> Callable[[_Machine], None]:
    def action(m: _Machine) -> None:
        count = m.number("<B" if size == 1 else "<i")
        if not 0 <= count <= 8:
            raise ValueError(f"an integer of {count:,} bytes")
        m.push(int.from_bytes(m.take(count), "little", signed=True))

    return action


def _decimal(m: _Machine) -> None:
    line = m.line()
    m.push({b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.removesuffix(b"L")))


def _quoted(m: _Machine) -> None:
    line = m.line(len(m.blob))
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    m.push(codecs.escape_decode(line[1:-1])[0])


def _settle(m: _Machine, values: list[object]) -> None:
    m.push({})
    m.update(values)


_ACTIONS: dict[int, Callable[[_Machine], None]] = {
    # frames and marks
    0x80: lambda m: m.take(1),  # PROTO
    0x95: lambda m: m.take(8),  # FRAME
    ord("("): lambda m: m.marks.append(len(m.stack)),
    # numbers
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("I"): _decimal,
    ord("L"): _decimal,
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    0x8A: _integer(1),
    0x8B: _integer(4),
    ord("F"): lambda m: m.push(float(m.line())),
    ord("G"): lambda m: m.push(m.number(">d")),
    # bytes and text
    ord("S"): _quoted,
    ord("T"): lambda m: m.push(m.counted("<i")),
    ord("U"): lambda m: m.push(m.counted("<B")),
    ord("B"): lambda m: m.push(m.counted("<I")),
    ord("C"): lambda m: m.push(m.counted("<B")),
    0x8E: lambda m: m.push(m.counted("<Q")),
    0x96: lambda m: m.push(m.counted("<Q")),  # BYTEARRAY8
    ord("V"): lambda m: m.push(m.line(len(m.blob)).decode("raw-unicode-escape")),
    ord("X"): lambda m: m.push(m.text("<I")),
    0x8C: lambda m: m.push(m.text("<B")),
    0x8D: lambda m: m.push(m.text("<Q")),
    # containers
    ord("]"): lambda m: m.push([]),
    ord("l"): lambda m: m.push(m.group()),
    ord("a"): lambda m: m.extend([m.pop()]),
    ord("e"): lambda m: m.extend(m.group()),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.group())),
    0x85: lambda m: m.push((m.pop(),)),
    0x86: lambda m: m.push((m.pop(), m.pop())[::-1]),
    0x87: lambda m: m.push((m.pop(), m.pop(), m.pop())[::-1]),
    ord("}"): lambda m: m.push({}),
    ord("d"): lambda m: _settle(m, m.group()),
    ord("s"): lambda m: m.update([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.update(m.group()),
    # the memo
    ord("p"): lambda m: m.remember(int(m.line())),
    ord("q"): lambda m: m.remember(m.number("<B")),
    ord("r"): lambda m: m.remember(m.number("<I")),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("g"): lambda m: m.push(m.memo[int(m.line())]),
    ord("h"): lambda m: m.push(m.memo[m.number("<B")]),
    ord("j"): lambda m: m.push(m.memo[m.number("<I")]),
    # names and what would be calls
    ord("c"): lambda m: m.find(m.line().decode(), m.line().decode()),
    0x93: lambda m: m.find(*[m.pop(), m.pop()][::-1]),
    ord("R"): _Machine.call,
    ord("b"): _Machine.build,
}
