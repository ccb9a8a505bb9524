"""What a file of weights may hold: tensors that a network can take, and a record of ours.

Both are judged before anything is built from them, whoever wrote the file: it may be damaged, another project's, or
meant badly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import torch
from torch import Tensor

from attnet.base.errors import ConfigError, WeightsError, shown
from attnet.model.options import NetworkOptions
from attnet.model.variants import study_options, variants

# What a checkpoint's readers look at besides the weights.
RECORDED = ("config", "colour", "classes", "top1", "epoch")
COUNTER = "num_batches_tracked"  # the one entry of a network that is no weight
_TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LONGEST_NAME = 500  # characters of a name; the longest of ours has 70
SAVE_AGAIN = "save it again as a plain state dict: torch.save(model.state_dict(), path)"


def check_state(state: object, origin: str, size: int | None = None) -> None:
    """See that a state dict holds dense numbers under names, each in its full size.

    Args:
        state: name -> tensor.
        origin: what to call it in errors.
        size: bytes of the file it comes from; None: it is no file's.

    Raises:
        WeightsError: naming the entry that is something else, or asks for more memory than the file has bytes.
    """
    if not isinstance(state, Mapping) or not state:
        found = "an empty one" if isinstance(state, Mapping) else type(state).__name__
        raise WeightsError(f"{origin}: a mapping of names to tensors is needed, found {found}; {SAVE_AGAIN}")
    for name, value in state.items():
        if problem := _problem(name, value):
            raise WeightsError(f"{origin}: entry {shown(name)} {problem}; {SAVE_AGAIN}")
    whole = sum(value.numel() * value.element_size() for value in state.values())
    if size is not None and whole > size:
        raise WeightsError(
            f"{origin}: its entries ask for {whole:,} bytes, and the file has {size:,}; it is damaged, or some entries "
            f"share their numbers: {SAVE_AGAIN}"
        )


def _problem(name: object, value: object) -> str:
    """What is wrong with an entry; "" where nothing is."""
    if not isinstance(name, str):
        return "is a name that is no text"
    if len(name) > LONGEST_NAME:
        return f"has a name of {len(name):,} characters, where {LONGEST_NAME} are read"
    if not isinstance(value, Tensor):
        return f"is a {type(value).__name__}; a mapping of names to tensors is needed"
    if value.is_meta or value.layout != torch.strided or value.is_quantized or value.is_nested:
        kind = "meta" if value.is_meta else "quantised" if value.is_quantized else "nested" if value.is_nested else ""
        return f"is a {kind or 'sparse'} tensor; dense numbers are needed"
    if value.dtype not in _TYPES and not (name.endswith(COUNTER) and not value.is_complex()):
        known = ", ".join(str(kind).removeprefix("torch.") for kind in _TYPES)
        return f"holds {str(value.dtype).removeprefix('torch.')}; weights are one of {known}"
    stored, needed = value.untyped_storage().nbytes(), value.numel() * value.element_size()
    if stored < needed:
        return f"of shape {list(value.shape)} needs {needed:,} bytes and stores {stored:,}"
    return ""


def first_not_finite(state: Mapping[str, Tensor]) -> str:
    """The first entry of a state dict, in its order, that holds a value which is no finite number; "" for none."""
    wrong = (name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all())
    return next(wrong, "")


class Record(TypedDict):
    """What is ours in a file besides the weights, as the fields of `Weights`."""

    config: Mapping[str, object]
    classes: tuple[str, ...]
    colour: Mapping[str, Sequence[float]] | None
    top1: float | None
    epoch: int | None


def own_record(content: object, outputs: int, origin: str) -> Record:
    """What a file records, entry by entry.

    Other projects' files use the same words for something else, so an entry is taken where it has our form alone:
    `config` names one of our networks, with options that it can have; `classes` are as many names as the last layer
    has outputs, or fewer; `colour` is a mean and a deviation for each of three channels; `top1` is in per cent; `epoch`
    is a count.

    Args:
        content: the whole of the file.
        outputs: of its last layer; 0: not known.
        origin: what to call it in errors.

    Raises:
        WeightsError: our record, of another number of classes than the last layer has.
    """
    entries = {name: content.get(name) for name in RECORDED} if isinstance(content, Mapping) else {}
    classes, colour = entries.get("classes"), entries.get("colour")
    top1, epoch = entries.get("top1"), entries.get("epoch")
    are_names = isinstance(classes, list | tuple) and all(isinstance(name, str) and name for name in classes)
    return Record(
        config=_own_config(entries.get("config"), outputs, origin),
        classes=tuple(classes) if are_names and (not outputs or len(classes) <= outputs) else (),
        colour=colour if _is_colour(colour) else None,
        top1=float(top1) if _is_number(top1) and 0 <= top1 <= 100 else None,
        epoch=epoch if type(epoch) is int and 0 <= epoch < 2**31 else None,
    )


def _own_config(config: object, outputs: int, origin: str) -> dict[str, object]:
    """The parameters that a file records, those with a plain value; {} where they are none of ours."""
    if not isinstance(config, Mapping):
        return {}
    model, count = config.get("model"), config.get("num_classes")
    if not isinstance(model, str) or model not in variants() or not (count is None or type(count) is int):
        return {}
    try:
        NetworkOptions(**study_options(config))
    except ConfigError:
        return {}
    if outputs and count not in (None, outputs):
        raise WeightsError(
            f"{origin}: it records num_classes={shown(count)}, and its last layer has {outputs} outputs; take another "
            "copy, or the state dict alone"
        )
    return {name: value for name, value in config.items() if isinstance(name, str) and _is_plain(name, value)}


def _is_plain(name: str, value: object) -> bool:
    """Whether it is a value that a parameter of ours can have; what `load_pretrained` reads has its own type."""
    wanted = {"normalize": bool | None, "is_pretrain": bool | None, "dataset": str | None}.get(name)
    if wanted is not None:
        return isinstance(value, wanted)
    if isinstance(value, list | tuple):
        return all(type(item) is int for item in value)
    return value is None or isinstance(value, bool | str) or _is_number(value)


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_colour(value: object) -> bool:
    """A mean and a deviation for each of three channels, which colours can be standardised by."""
    if not isinstance(value, Mapping) or set(value) != {"mean", "std"}:
        return False
    rows = list(value.values())
    three = all(isinstance(row, list | tuple) and len(row) == 3 and all(map(_is_number, row)) for row in rows)
    return three and all(deviation > 0 for deviation in value["std"])
