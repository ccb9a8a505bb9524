"""Files of weights, each read in memory of about its own size, whoever wrote it: PyTorch's own and safetensors.

The latter needs a package of its own, which is asked for when such a file is. Graphs have `graphs.py`.
"""

from __future__ import annotations

import importlib
import io
import json
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch

from attnet.base.errors import AttnetError, WeightsError, shown
from attnet.base.files.kinds import ARCHIVES, HDF5, NUMPY, SEEN, kind_of
from attnet.base.json_files import JsonError, parse
from attnet.model.weights.contents import RECORDED, SAVE_AGAIN
from attnet.model.weights.others import stand_ins

ONNX, SAFETENSORS = ".onnx", ".safetensors"
# Bytes of a PyTorch file besides the numbers of its tensors: names, shapes, and whatever else it records. Python takes
# up to 64 times as much for them. Ours have at most 2 MB.
_MOST_PICKLED = 16 << 20
# Values within one another; and how often, by the byte, a value may be used again.
_DEPTH, _REPEATED = 1000, 16
# Opcodes that leave a list or a dict, or a thing with a state of its own, on the stack.
_GROW = {"EMPTY_LIST", "EMPTY_DICT", "LIST", "DICT", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"}
FETCH_AGAIN = "download or copy it again"
_UNPACK = "unpack it, and give the file of weights within"
_MAKE = f"make tensors of its arrays, {SAVE_AGAIN}"
_ZIP = b"PK\x03\x04"  # as torch.save begins a file today
# torch unpickles these, and each makes memory of any size from a number. No state dict holds them.
_MAKERS = re.compile(r"bytearray|\w*(Tensor|TypedStorage|UntypedStorage)")


def package(name: str, file: str | Path) -> ModuleType:
    """Import an optional package; AttnetError says which file needs it and how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AttnetError(
            f'{file}: needs the package {name.split(".")[0]} ({error}); pip install -e ".[export]" brings it'
        ) from None


def as_strings(record: Mapping[str, object]) -> dict[str, str]:
    """A record as such files keep it: strings as they are, anything else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in record.items()}


def read_torch(path: Path) -> object:
    """What `torch.save` wrote, in its zip format or the one before it, by `torch.load(weights_only=True)`.

    Raises:
        WeightsError: damaged, or not to be read without running code or in memory of about the file's own size.
    """
    try:
        if path.exists() and not path.is_file():
            raise WeightsError(f"weights {path}: is no plain file; give one")  # a pipe would keep us waiting
        with open(path, "rb") as file:
            head = file.read(SEEN)
        if foreign := _foreign(path, head):
            raise WeightsError(f"weights {path}: {foreign}")
        names = (_check_zip if head.startswith(_ZIP) else _check_pickles)(path)
        with torch.serialization.safe_globals(stand_ins(names)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|class|global) ([\w.]+)", str(error))
        told = re.search(r"WeightsUnpickler error:\s*([^\n]{1,200})", str(error))  # torch's advice before it is long
        culprit = f"it asks for {wanted[1]}" if wanted else told[1] if told else first_line(error)
        raise _refused(path, culprit) from None
    except Exception as error:  # torch and zipfile raise many types for a damaged or foreign file
        raise WeightsError(
            f"weights {path}: not a readable PyTorch file ({first_line(error)}); {FETCH_AGAIN}"
        ) from None


def _foreign(path: Path, head: bytes) -> str:
    """What a file is that is none of torch.save's, and the way out; "" for what may be one."""
    if not head.startswith(_ZIP):
        kind = kind_of(head)
        way = _UNPACK if kind in ARCHIVES else _MAKE if kind in (HDF5, NUMPY) else FETCH_AGAIN
        return f"it is {kind}; {way}" if kind else ""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        return f"a TorchScript archive, which is a program; {SAVE_AGAIN}"
    if "data.pkl" in {end.lower() for end in ends}:
        return ""
    if any("exported_program" in name or name.endswith("/archive_format") for name in names):
        return f"a program of torch.export; {SAVE_AGAIN}"
    if any(end.endswith(".npy") for end in ends):
        return f"arrays of NumPy's (.npz); {_MAKE}"
    return f"a ZIP archive of {shown(', '.join(names[:3]))}; {_UNPACK}"


def _refused(path: Path, culprit: str) -> WeightsError:
    return WeightsError(
        f"weights {path}: refused, since it is damaged or holds more than tensors ({culprit}) and reading it could run "
        f"code; {SAVE_AGAIN}"
    )


def _check_zip(path: Path) -> set[str]:
    """See that an archive's members lie in it as they are, so that they are together no larger than the file; the names
    ("module.name") that its pickle asks for.
    """
    names, size = set(), path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise WeightsError(
                    f"weights {path}: its member {member.filename[:80]!r} is compressed ({member.file_size:,} bytes "
                    f"unpacked), which torch.save never does; {SAVE_AGAIN}"
                )
        whole = sum(member.file_size for member in members)
        if whole > size:
            raise WeightsError(
                f"weights {path}: its members claim {whole:,} bytes, and the file has {size:,}; it is damaged: "
                f"{FETCH_AGAIN}"
            )
        for member in members:
            if member.filename.lower().endswith("/data.pkl"):  # torch finds it in any case
                _check_length(path, member.file_size)
                names |= _check_pickle(path, io.BytesIO(archive.read(member)))
    return names


def _check_pickles(path: Path) -> set[str]:
    """The same for the format before: four pickles (magic number, version, machine, content) and a list, then numbers.

    It has no sizes that could be checked: each tensor is read into memory that its pickle asks for, and what is
    missing in the file is never touched.
    """
    with open(path, "rb") as file:
        start = io.BytesIO(file.read(_MOST_PICKLED))
    names: set[str] = set()
    for _ in range(5):
        if start.tell() == start.getbuffer().nbytes:
            break  # no more of it, which torch then misses
        try:
            names |= _check_pickle(path, start)
        except ValueError:  # it ends within: the file does, or what is looked at
            if start.getbuffer().nbytes == _MOST_PICKLED:
                _check_length(path, _MOST_PICKLED + 1)
            raise
    return names


def _check_length(path: Path, length: int) -> None:
    if length > _MOST_PICKLED:
        raise WeightsError(
            f"weights {path}: {_MOST_PICKLED >> 20} MB or more of it are no tensors; nothing of that size is read: "
            f"{SAVE_AGAIN}"
        )


def _check_pickle(path: Path, stream: io.BytesIO) -> set[str]:
    """Walk through a pickle, running nothing, and see that it asks for no maker of memory and no endless value; the
    names that it asks for.
    """
    begun, values, names = stream.tell(), _Values(), set()
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            if _MAKERS.fullmatch(argument.rpartition(" ")[2]):
                raise _refused(path, f"it asks for {argument.replace(' ', '.')}")
            names.add(argument.replace(" ", "."))
        values.follow(opcode, argument)
        if values.deepest > _DEPTH or values.repeated > _REPEATED * (stream.tell() - begun) + _DEPTH:
            raise _refused(path, "it holds values within values without end")
    return names


class _Values:
    """What the values of a pickle weigh, followed through its opcodes without making any.

    A value may stand in it once and be used often: sixty tuples, each twice the one before, are 200 bytes, and what
    goes over them (as a dict does with its keys) never comes back. What may grow later, a list or a dict, weighs one:
    no key holds it.
    """

    def __init__(self) -> None:
        self.stack: list[tuple[int, int] | None] = []  # weight and depth; None is a mark
        self.memo: dict[int, tuple[int, int]] = {}
        self.repeated, self.deepest = 0, 0

    def follow(self, opcode: pickletools.OpcodeInfo, argument: object) -> None:
        if opcode.name in ("GET", "BINGET", "LONG_BINGET"):
            value = self.memo.get(argument, (1, 0))
            self.repeated += value[0]
            self.stack.append(value)
        elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(self.memo) if argument is None else argument
            self.memo[place] = (self.stack and self.stack[-1]) or (1, 0)
        else:
            parts = [part for wanted in reversed(opcode.stack_before) for part in self._taken(wanted)]
            weight, depth = 1 + sum(w for w, _ in parts), 1 + max((d for _, d in parts), default=-1)
            kept = (1, 0) if opcode.name in _GROW else (weight, depth)
            self.deepest = max(self.deepest, kept[1])
            self.stack += [None if made is pickletools.markobject else kept for made in opcode.stack_after]

    def _taken(self, wanted: pickletools.StackObject) -> list[tuple[int, int]]:
        taken = []
        while self.stack and (wanted is not pickletools.stackslice or self.stack[-1] is not None):
            if (value := self.stack.pop()) is not None:
                taken.append(value)
            if wanted is not pickletools.stackslice:
                break
        return taken


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def metadata_value(text: str, name: str, origin: str) -> object:
    """A value of metadata; None for what is no JSON, which is another project's."""
    try:
        return parse(text)
    except JsonError as error:
        if "nested" in str(error):
            raise WeightsError(
                f"{origin}: {name} in its metadata is {error}, and nothing of attnet's is; {FETCH_AGAIN}"
            ) from None
        return None


def read_safetensors(path: Path) -> dict[str, object]:
    """A safetensors file as a checkpoint: tensors on the CPU under `model`, and what it records.

    Raises:
        WeightsError: not a safetensors file. AttnetError: the package is missing.
    """
    safetensors = package("safetensors", path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            strings = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # the package has its own type for a damaged file
        raise WeightsError(
            f"weights {path}: not a readable safetensors file ({first_line(error)}); {FETCH_AGAIN}"
        ) from None
    record = {key: metadata_value(strings[key], key, f"weights {path}") for key in RECORDED if key in strings}
    return {"model": state, **record}
