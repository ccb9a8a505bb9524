"""Whose weights these are: names and shapes held against a network's own, and differences said in one go."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnet.base.errors import WeightsError
from attnet.model.network import ResidualAttentionNetwork
from attnet.model.variants import build_model, variants
from attnet.model.weights.contents import COUNTER
from attnet.model.weights.reference_names import from_reference
from attnet.model.weights.wrappers import unwrap_state

_SHOWN = 6
_HEAD = "fc."  # the last linear layer


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: `layout` is "attnet" or "reference"; `dropped` names what the network never uses.

    `missing` are the counters of batch norms that the weights lack, as PyTorch before 0.4.1 left them out. No forward
    pass here reads them; the network keeps its own.
    """

    layout: str
    loaded: int
    dropped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def fitting_variants(state: Mapping[str, Tensor]) -> list[str]:
    """The names of `variants()` that a state dict (ours or the reference's) fits, with or without its counters."""
    own = _own_names(unwrap_state(state).state)[1]
    return [name for name in variants() if _fits(name, own)]


def whole_state(
    model: nn.Module, state: Mapping[str, Tensor], origin: str, peeled: Sequence[str] = (), new_head: bool = False
) -> tuple[dict[str, Tensor], LoadReport]:
    """A whole state dict for `model`, and what there is to say of it.

    Args:
        state: ours or the reference's, without wrappers; `peeled` names those that were taken off.
        origin: what to call it in errors.
        new_head: the model's own last layer instead of that of `state`.

    Raises:
        WeightsError: names or shapes that do not fit, each listed, with the network they would fit if any.
    """
    layout, own, dropped = _own_names(state)
    current = model.state_dict()
    counters = {name: value for name, value in current.items() if name.endswith(COUNTER) and name not in own}
    head = {name: value for name, value in current.items() if new_head and name.startswith(_HEAD)}
    dropped += tuple(name for name in own if name in head)
    own = {**own, **counters, **head}
    wanted = {name: value.shape for name, value in current.items()}
    if problems := _differences(wanted, own):
        lines = [f"{origin}: these weights do not fit {_describe(model)}:", *problems]
        if peeled:
            lines.append(f"taken off before: {_listed(peeled)}")
        if fits := [name for name in variants() if _fits(name, own)]:
            lines.append(f"they fit model={' or '.join(fits)} with num_classes={len(own['fc.weight'])}")
        if not _differences(_without_head(wanted), _without_head(own)):
            lines.append("only the last layer differs: new_head=True loads all the others")
        raise WeightsError("\n  ".join(lines))
    return own, LoadReport(layout, len(own) - len(head) - len(counters), dropped, tuple(counters))


def _own_names(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """The layout of a state dict, its entries under our names, and those of the reference that are never used."""
    if not any(name.startswith("residual_block") for name in state):
        return "attnet", dict(state), ()
    return "reference", *from_reference(state)


def _without_head(entries: Mapping[str, object]) -> dict:
    return {name: value for name, value in entries.items() if not name.startswith(_HEAD)}


def _listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _differences(wanted: Mapping[str, torch.Size], found: Mapping[str, Tensor]) -> list[str]:
    """A line for each kind of difference, the first few names spelled out."""
    missing = [n for n in wanted if n not in found]
    unknown = [n for n in found if n not in wanted]
    shapes = [
        f"{n} {tuple(found[n].shape)} where {tuple(wanted[n])} is needed"
        for n in wanted
        if n in found and found[n].shape != wanted[n]
    ]
    kinds = {"missing": missing, "not in this network": unknown, "other shape": shapes}
    return [f"{title} ({len(names)}): {_listed(names)}" for title, names in kinds.items() if names]


def _describe(model: nn.Module) -> str:
    if isinstance(model, ResidualAttentionNetwork):
        return f"{model.variant.label}, num_classes={model.num_classes}"
    return type(model).__name__


def _fits(name: str, state: Mapping[str, Tensor]) -> bool:
    head, stem, row = state.get("fc.weight"), state.get("stem.0.weight"), variants()[name]
    if head is None or head.ndim != 2 or head.shape[1] != row.tail_width:
        return False
    if stem is None or stem.shape != (row.stem.channels, 3, row.stem.kernel, row.stem.kernel):
        return False  # told by its ends: all shapes of all networks take seconds
    shapes = _shapes(name)
    ends = {end: torch.Size([len(head), *shapes[end][1:]]) for end in ("fc.weight", "fc.bias")}
    there = {key: shape for key, shape in shapes.items() if key in state or not key.endswith(COUNTER)}
    return not _differences(there | ends, state)


@functools.cache
def _shapes(name: str) -> dict[str, torch.Size]:
    """The shapes of a network's weights, found without any memory for them."""
    with torch.device("meta"):
        return {key: value.shape for key, value in build_model(name).state_dict().items()}
