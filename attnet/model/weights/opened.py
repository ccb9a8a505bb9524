"""Weights: what a file of them is.

Files are read by `torch.load(weights_only=True)`, which rebuilds tensors and refuses to run code; .safetensors and
.onnx files hold no code. Each is checked before anything is built from it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from attnet.base.errors import ConfigError, WeightsError, shown
from attnet.base.files.paths import relative_to_root, resolve_path
from attnet.model.modules import WITHOUT_BRANCH
from attnet.model.network import ResidualAttentionNetwork
from attnet.model.units import is_own_code
from attnet.model.variants import choose_variant, study_options
from attnet.model.weights.contents import own_record
from attnet.model.weights.fitting import fitting_variants, whole_state
from attnet.model.weights.formats import ONNX, SAFETENSORS, read_safetensors, read_torch
from attnet.model.weights.graphs import OnnxNetwork
from attnet.model.weights.wrappers import unwrap_state

BEST = "best.pt"  # of a run folder
_QUICK = 1000  # units whose shapes are known within a second
_ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar", SAFETENSORS, ONNX)
_SHOWN = 4


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
                the average over training steps is taken where there is one (see `attnet.model.weights.wrappers`).

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
            network = ResidualAttentionNetwork(variant, self.outputs or 10)
        whole_state(network, self.state, origin, self.peeled)


def _read(path: Path) -> object:
    with _looking(path):
        if not path.is_file():
            raise WeightsError(f"weights {path}: {'is no plain file' if path.exists() else 'no such file'}")
    if path.suffix == SAFETENSORS:
        return read_safetensors(path)
    return OnnxNetwork(path).checkpoint if is_onnx(path) else read_torch(path)


@contextlib.contextmanager
def _looking(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"weights {path}: cannot be read ({error.strerror or error})") from None


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
        files = [p.with_name(BEST) for p in resolve_path("runs").glob("**/result.json")]
        files = [file for file in files if file.exists()]
        if not files:
            raise WeightsError("pretrained='': no finished run below runs/; give a weights file, or train first")
        return max(files, key=lambda file: file.stat().st_mtime)
    place = resolve_path(path)
    if not place.exists() and str(path) in shipped_weights():
        return shipped_weights()[str(path)]
    if not os.path.isdir(place):
        return place
    if not os.path.exists(place / BEST):
        with _looking(place):
            files = sorted(file.name for file in place.iterdir() if file.suffix in _ENDINGS and file.is_file())
        there = f"it holds {shown(', '.join(files[:_SHOWN]))}: give one" if files else "give a run's folder, or a file"
        raise WeightsError(f"weights {place}: a folder without {BEST}; {there}")
    return place / BEST


def shipped_weights() -> dict[str, Path]:
    """Name -> file of the trained weights that come with the package, in half precision."""
    return {path.stem: path for path in sorted((Path(__file__).parents[1] / "shipped").glob("*.pt"))}
