"""Weights: what a file of them is, and loading them into a network.

Files are read by `torch.load(weights_only=True)`, which rebuilds tensors and refuses to run code; .safetensors and
.onnx files hold no code. Each is checked before anything is built from it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from attnet.base.errors import ConfigError, WeightsError, shown
from attnet.base.files import relative_to_root, resolve_path
from attnet.model.contents import COUNTER, first_not_finite, own_record
from attnet.model.formats import ONNX, SAFETENSORS, read_safetensors, read_torch
from attnet.model.graphs import OnnxNetwork
from attnet.model.modules import WITHOUT_BRANCH
from attnet.model.network import ResidualAttentionNetwork, unwrap
from attnet.model.reference_names import from_reference
from attnet.model.units import is_own_code
from attnet.model.variants import build_model, choose_variant, study_options, variants
from attnet.model.wrappers import unwrap_state

_SHOWN = 6
_QUICK = 1000  # units whose shapes are known within a second
_HEAD = "fc."  # the last linear layer


@dataclass(frozen=True)
class Weights:
    """A weights file, read once: its tensors, and what it records besides them, empty where it says nothing.

    `state` has the names of the file without wrappers; it is empty for an ONNX graph, which is run as it is. `config`
    are the parameters it was trained with, `colour` the mean and deviation that colours were standardised by, `top1`
    the per cent it had after `epoch` epochs. Where a file holds several sets of weights, `entry` names this one,
    `averaged` says whether it is an average over training steps, and `others` names those that were left. `peeled` are
    the words that wrappers put before names, and the counters they put among the weights.
    """

    path: Path
    state: Mapping[str, Tensor]
    config: Mapping[str, object] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    colour: Mapping[str, Sequence[float]] | None = None
    top1: float | None = None
    epoch: int | None = None
    entry: str = ""
    averaged: bool = False
    others: tuple[str, ...] = ()
    peeled: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: str | Path = "") -> Weights:
        """Read weights.

        Args:
            path: a file (ours, also as .safetensors or .onnx, or a checkpoint of the reference's classes), a name of
                `shipped_weights()`, a run folder (its best.pt), or "" for the run that finished last. Relative paths
                start at the repository root. "FILE:ENTRY" takes one of several sets of weights in a file; without it
                the average over training steps is taken where there is one (see `attnet.model.wrappers`).

        Raises:
            WeightsError: no such file, not a file of weights, one that holds anything but plain data, or no such entry.
        """
        place, entry = _split_entry(path)
        file = find_weights(place)
        origin, content = f"weights {file}", _read(file)
        if is_onnx(file):
            if entry:
                raise WeightsError(f"{origin}: a graph holds no weights under names; leave out :{entry[:40]}")
            return cls(file, {}, **own_record(content, 0, origin))
        found = unwrap_state(content, origin, entry, file.stat().st_size)
        head = found.state.get("fc.weight")
        record = own_record(content, 0 if head is None or head.ndim != 2 else len(head), origin)
        which = {name: getattr(found, name) for name in ("entry", "averaged", "others", "peeled")}
        return cls(file, found.state, **record, **which)

    @property
    def is_graph(self) -> bool:
        """Whether it is a graph of `attnet export`, which has no modules."""
        return is_onnx(self.path)

    @property
    def name(self) -> str:
        """As a user would type it."""
        shipped = {path: name for name, path in shipped_weights().items()}
        return shipped.get(self.path) or relative_to_root(self.path)

    @property
    def address(self) -> str:
        """What `open` takes to read the same again: the path, with the entry where there are several."""
        return f"{self.path}:{self.entry}" if self.others else str(self.path)

    def choice(self) -> str:
        """In words, which of several sets of weights this is: "averaged weights 'ema' (not 'model')"; else ""."""
        others = " or ".join(map(repr, self.others))
        return f"{'averaged ' if self.averaged else ''}weights {self.entry!r} (not {others})" if others else ""

    @functools.cached_property
    def model(self) -> str | None:
        """The network: as recorded, else the first of `variants()` that the tensors fit; None for none."""
        return self.config.get("model") or next(iter(fitting_variants(self.state)), None)

    @property
    def outputs(self) -> int:
        """The outputs of its last layer; 0 where it has none."""
        head = self.state.get("fc.weight")
        return 0 if head is None or head.ndim != 2 else head.shape[0]

    def options(self, given: Mapping[str, object], model: str | None = None) -> dict[str, object]:
        """The options for `build_model`: those given, else those recorded where `model` is the recorded network.

        Raises:
            WeightsError: the file names a unit outside this package, which would run code; it must be given.
        """
        is_same = model in (None, self.config.get("model"))
        recorded = study_options(self.config if is_same else {})
        options = recorded | study_options(given)
        unit = options.get("unit", "preact")
        if is_own_code(unit) and given.get("unit") is None:
            raise WeightsError(
                f"weights {self.path}: trained with unit={unit!r}, which is no part of attnet, and code is not run "
                f"because a weights file names it; if you trust it, give unit={unit!r} yourself"
            )
        if is_same and self.config and not self.is_graph:
            self._check_network(recorded | ({"unit": unit} if given.get("unit") is not None else {}))
        return options

    def _check_network(self, options: Mapping[str, object]) -> None:
        """See, before anything is built, that the recorded network is that of the tensors: no larger, above all."""
        origin = f"weights {self.path}"
        try:
            variant = choose_variant(self.config["model"], **options)
        except ConfigError as error:
            raise WeightsError(f"{origin}: its record cannot be: {error}; give model and options yourself") from None
        in_mask = 0 if variant.attention in WITHOUT_BRANCH else 2 * variant.r
        units = sum(variant.modules) * (2 * variant.p + variant.t + in_mask)
        if units > max(len(self.state), _QUICK):  # each has some entries
            raise WeightsError(
                f"{origin}: it records {variant.label}, which has {shown(units)} residual units or more, and holds "
                f"{len(self.state)} entries; it is damaged: take another copy, or the state dict alone"
            )
        with torch.device("meta"):  # no memory is taken for it
            _match(ResidualAttentionNetwork(variant, self.outputs or 10), self)


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


def _read(path: Path) -> object:
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file")
    if path.suffix == SAFETENSORS:
        return read_safetensors(path)
    return OnnxNetwork(path).checkpoint if is_onnx(path) else read_torch(path)


def is_onnx(path: str | Path) -> bool:
    """Whether a weights file is a graph of `attnet.model.export`, which is run as it is."""
    return Path(path).suffix == ONNX


def _split_entry(path: str | Path) -> tuple[str | Path, str]:
    """ "FILE:ENTRY" as both; a file that is there may have a colon in its name."""
    place, colon, entry = str(path).rpartition(":")
    names_one = colon and place and not resolve_path(path).exists() and not {"/", "\\"} & set(entry)
    return (place, entry) if names_one else (path, "")


def find_weights(path: str | Path = "") -> Path:
    """The file meant by a path: the file itself, best.pt of a run folder, or for "" of the run that finished last.

    Relative paths start at the repository root. A name of `shipped_weights()` means that file.
    """
    if not str(path):
        files = [p.with_name("best.pt") for p in resolve_path("runs").glob("**/result.json")]
        files = [file for file in files if file.exists()]
        if not files:
            raise WeightsError("pretrained='': no finished run below runs/; give a weights file, or train first")
        return max(files, key=lambda file: file.stat().st_mtime)
    place = resolve_path(path)
    if not place.exists() and str(path) in shipped_weights():
        return shipped_weights()[str(path)]
    return place / "best.pt" if place.is_dir() else place


def shipped_weights() -> dict[str, Path]:
    """Name -> file of the trained weights that come with the package, in half precision."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "shipped").glob("*.pt"))}


def fitting_variants(state: Mapping[str, Tensor]) -> list[str]:
    """The names of `variants()` that a state dict (ours or the reference's) fits, with or without its counters."""
    own = _own_names(unwrap_state(state).state)[1]
    return [name for name in variants() if _fits(name, own)]


def load_weights(
    model: nn.Module, path_or_state_dict: str | Path | Weights | Mapping[str, Tensor], *, new_head: bool = False
) -> LoadReport:
    """Load weights into a network of `build_model`, in place, whatever half- or full-precision type it has.

    Args:
        model: the network; its own dtype and device are kept.
        path_or_state_dict: weights, opened or as `Weights.open` takes them; or a plain state dict, ours or of the
            reference's `ResidualAttentionModel_…` classes, in any wrapper of `attnet.model.wrappers`. The reference
            stores 1x1 shortcuts that its forward pass never uses; they are dropped.
        new_head: leave the model's last linear layer as it is, and drop the file's: for other classes.

    Returns:
        What was loaded, what was dropped, and what was not there.

    Raises:
        WeightsError: names or shapes that do not fit, each listed, with the network they would fit if any; values
            that are no finite numbers.
    """
    given = path_or_state_dict
    opened = Weights.open(given) if isinstance(given, str | Path) else given
    model = unwrap(model)
    own, report = _match(model, opened, new_head)
    current = model.state_dict()
    if wrong := first_not_finite({name: own[name].to(value.dtype) for name, value in current.items()}):
        origin = f"weights {opened.path}" if isinstance(opened, Weights) else "state dict"
        raise WeightsError(
            f"{origin}: {wrong} holds values that are no finite numbers (or none in "
            f"{str(current[wrong].dtype).removeprefix('torch.')}), as training leaves them that has diverged; take an "
            "earlier checkpoint"
        )
    model.load_state_dict(own)
    return report


def _match(
    model: nn.Module, weights: Weights | Mapping[str, Tensor], new_head: bool = False
) -> tuple[dict[str, Tensor], LoadReport]:
    """A whole state dict for `model`, and what `load_weights` says of it; arguments and errors as there."""
    if isinstance(weights, Weights):
        origin, state, peeled = f"weights {weights.path}", weights.state, weights.peeled
        if weights.is_graph:
            raise WeightsError(
                f"{origin}: an ONNX graph has no modules, hence no masks, and cannot be trained; notebooks/"
                "evaluate.ipynb takes it, anything else the checkpoint or the .safetensors file of the same network"
            )
    else:
        found = unwrap_state(weights)
        origin, state, peeled = "state dict", found.state, found.peeled
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
