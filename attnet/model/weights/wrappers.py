"""What other tools wrap around weights, in one table, and taking it off.

A checkpoint may hold several sets of weights, most often those that were trained and their average over the steps. The
average is taken unless another one is asked for: it is what such trainings test and publish (Polyak and Juditsky,
"Acceleration of Stochastic Approximation by Averaging", 1992), and what timm's loader and our own `best.pt` take.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from attnet.base.errors import WeightsError, shown
from attnet.model.weights.contents import LONGEST_NAME, check_state

# Where a state dict lies in a larger checkpoint, and who puts it there; the first one counts.
CONTAINERS = {
    "model": "attnet, torchvision, DeiT",
    "state_dict": "Lightning, timm",
    "model_state_dict": "the tutorials of PyTorch",
    "net": "kuangliu's pytorch-cifar",
    "network": "",
    "module": "DeepSpeed, FSDP",
    "training": "attnet: the weights behind the average",
    "params": "BasicSR",
    "weights": "",
    "student": "DINO, distillation",
}
# The same for averaged weights. In files without containers these stand before the names.
AVERAGES = {
    "ema": "",
    "state_dict_ema": "timm",
    "model_ema": "torchvision, DeiT",
    "ema_state_dict": "",
    "shadow": "moving averages kept by name",
    "ema_model": "ema-pytorch",
    "params_ema": "BasicSR",
    "swa_state_dict": "averages by torch.optim.swa_utils",
    "swa_model": "the same",
    "teacher": "DINO, mean teachers: the student's average",
}
# Words before every name.
PREFIXES = {
    "module": "DataParallel, DistributedDataParallel, AveragedModel",
    "_orig_mod": "torch.compile",
    "model": "Lightning",
    "net": "Lightning",
    "network": "Lightning",
    "online_model": "ema-pytorch",
    "_forward_module": "Lightning Fabric",
    "student": "distillation",
}
# Words anywhere in a name.
WITHIN = {
    "_orig_mod": "torch.compile of a part",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "FSDP",
}
# Entries that are no weights.
COUNTERS = {
    "n_averaged": "AveragedModel",
    "initted": "ema-pytorch",
    "step": "ema-pytorch",
    "total_ops": "thop",
    "total_params": "thop",
}

_FRONT = re.compile(rf"(?:(?:{'|'.join(PREFIXES)})\.)+")
_WITHIN = re.compile(rf"(?<=\.)(?:(?:{'|'.join(WITHIN)})\.)+")
_HEAD = "fc.weight"  # of our networks and of the reference's: what stands before it are wrappers
_DEEPEST = 6  # containers within one another
_MOST_ELSEWHERE, _NAMED = 20, 4  # sets of weights under names of anybody's; how many of them an error names


@dataclass(frozen=True)
class Unwrapped:
    """A state dict without its wrappers.

    `entry` is where it lay in the checkpoint ("model_ema", "ema.shadow", or "" for the checkpoint itself, which is
    called "raw" where averages lie beside it), `averaged` whether that holds an average, `others` what else it could
    have been. `peeled` are the words taken off names, and the names of counters that were left out.
    """

    state: dict[str, Tensor]
    entry: str = ""
    averaged: bool = False
    others: tuple[str, ...] = ()
    peeled: tuple[str, ...] = ()


def unwrap_state(checkpoint: object, origin: str = "state dict", entry: str = "", size: int | None = None) -> Unwrapped:
    """The weights within a checkpoint.

    Args:
        checkpoint: a state dict, or what holds some.
        origin: what to call it in errors.
        entry: which of several, as `Unwrapped.entry` names them; "": the average where there is one, else the first.
        size: bytes of its file, if it is one's.

    Raises:
        WeightsError: no state dict (as `check_state`), or none at `entry`.
    """
    found = list(_states(checkpoint, set())) if isinstance(checkpoint, Mapping) else []
    if not found or (entry and entry not in {one.entry for one in found}):
        found += _elsewhere(checkpoint, {one.entry for one in found})
        if found and not entry:
            names = [one.entry for one in found]
            raise WeightsError(
                f"{origin}: it holds weights under {shown(' and '.join(names[:_NAMED]))}, which no tool that is known "
                f"here does; say which, as FILE:{shown(names[0])[1:-1]}"
            )
    if not found:
        check_state(checkpoint, origin)
    if entry:
        found = [one for one in found if one.entry == entry] + [one for one in found if one.entry != entry]
        if found[0].entry != entry:
            there = ", ".join(one.entry or "one set of weights without a name" for one in found)
            raise WeightsError(f"{origin}: there are no weights at {shown(entry)} in it; there is {there}")
    else:
        found.sort(key=lambda one: not one.averaged)  # in order otherwise
    chosen, *others = found
    counters = tuple(name for name in chosen.state if _is_counter(name))
    weights = {name: value for name, value in chosen.state.items() if not _is_counter(name)}
    check_state(weights, origin, size)
    state, words = _peeled(weights, origin)
    return Unwrapped(state, chosen.entry, chosen.averaged, tuple(one.entry for one in others), (*words, *counters))


def _states(
    content: Mapping, seen: set[int], path: tuple[str, ...] = (), averaged: bool = False
) -> Iterator[Unwrapped]:
    """Every state dict within a checkpoint, in the order of the tables; what holds some is looked into once.

    A file may have a mapping under many names, and in itself: by name after name there would be millions of ways.
    """
    held = [name for name in (*CONTAINERS, *AVERAGES) if isinstance(content.get(name), Mapping) and content[name]]
    if held:
        if len(path) == _DEEPEST or id(content) in seen:
            return
        seen.add(id(content))
        for name in held:
            is_average = name in AVERAGES or (name == "model" and "training" in held)
            yield from _states(content[name], seen, (*path, name), averaged or is_average)
        return
    groups: dict[str, dict] = {}
    for name, value in content.items():
        first = name.partition(".")[0] if isinstance(name, str) else ""
        groups.setdefault(first if first in AVERAGES else "", {})[name] = value
    others = groups.keys() - {""}
    for first, group in groups.items():
        if first:
            bare = {name[len(first) + 1 :]: value for name, value in group.items()}
            yield Unwrapped(bare, ".".join((*path, first)), averaged=True)
        elif any(isinstance(value, Tensor) and (name not in COUNTERS or not others) for name, value in group.items()):
            yield Unwrapped(group, ".".join(path) or ("raw" if others else ""), averaged or "n_averaged" in group)


def _elsewhere(checkpoint: object, known: set[str]) -> list[Unwrapped]:
    """State dicts under names of anybody's, a few: which one is meant must be said."""
    found, seen, level = [], set(), [((), checkpoint)]
    for _ in range(_DEEPEST):
        inner = []
        for path, content in level:
            if not isinstance(content, Mapping) or id(content) in seen:
                continue
            holds = any(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
            if path and holds and ".".join(path) not in known:
                found.append(Unwrapped(dict(content), ".".join(path), averaged="n_averaged" in content))
                if len(found) == _MOST_ELSEWHERE:
                    return found
            else:
                seen.add(id(content))
                inner += [((*path, name), value) for name, value in content.items() if isinstance(name, str)]
        level = inner
    return found


def _peeled(state: Mapping[str, Tensor], origin: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A checked state dict without words before and within its names, and what these were.

    The words before a network's last layer are wrappers; without such a layer, those that all entries share. What does
    not begin with them stays, for errors to name. A word that no tool is known for is one where every name begins with
    it, the last layer's too: somebody has called the network so in a class of their own.
    """
    names = list(state)
    heads = {name.removesuffix(_HEAD) for name in names if name == _HEAD or name.endswith(f".{_HEAD}")}
    fronts = {front for front in heads if _front(front) == front}
    front = fronts.pop() if len(fronts) == 1 else _shared(names)
    if not front and len(heads) == 1 and all(name.startswith(*heads) for name in names):
        (front,) = heads
    ours = {name: _WITHIN.sub("", name.removeprefix(front)) for name in names}
    if len(set(ours.values())) < len(ours):
        count = Counter(ours.values())
        twice = next(name for name in names if count[ours[name]] > 1)
        raise WeightsError(
            f"{origin}: {shown(twice)} is there twice, once with {front or 'a wrapper'} before it or within; keep one"
        )
    words = [f"{word}." for word in front.split(".") if word]
    words += [f"{word}." for word in WITHIN if any(f".{word}." in name.removeprefix(front) for name in names)]
    return {ours[name]: state[name] for name in names}, tuple(dict.fromkeys(words))


def _is_counter(name: object) -> bool:
    return isinstance(name, str) and len(name) <= LONGEST_NAME and name.rpartition(".")[2] in COUNTERS


def _front(name: str) -> str:
    found = _FRONT.match(name)
    return found[0] if found else ""


def _shared(names: list[str]) -> str:
    """The longest front that all names have."""
    front = min((_front(name) for name in names), key=len, default="")
    while front and not all(name.startswith(front) for name in names):
        front = front[: front.rindex(".", 0, -1) + 1] if "." in front[:-1] else ""
    return front
