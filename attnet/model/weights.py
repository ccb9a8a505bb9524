"""Weights: what a file of them is, and loading them into a network.

Files are read by `torch.load(weights_only=True)`, which rebuilds tensors and refuses to run code; .safetensors and
.onnx files hold no code.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from attnet.base.errors import WeightsError
from attnet.base.files import relative_to_root, resolve_path
from attnet.model.formats import ONNX, SAFETENSORS, OnnxNetwork, read_safetensors
from attnet.model.network import ResidualAttentionNetwork, unwrap
from attnet.model.reference_names import from_reference
from attnet.model.units import is_own_code
from attnet.model.variants import build_model, study_options, variants

# Wrappers that DistributedDataParallel and torch.compile put in front of every name.
_PREFIXES = ("module.", "_orig_mod.")
# Where training scripts keep the state dict inside a larger checkpoint.
_NESTED = ("model", "state_dict", "model_state_dict", "net")
_SHOWN = 6
_HEAD = "fc."  # the last linear layer


@dataclass(frozen=True)
class Weights:
    """A weights file, read once: its tensors, and what it records besides them, empty where it says nothing.

    `state` has the names of the file without wrappers; it is empty for an ONNX graph, which is run as it is. `config`
    are the parameters it was trained with, `colour` the mean and deviation that colours were standardised by, `top1`
    the per cent it had after `epoch` epochs.
    """

    path: Path
    state: Mapping[str, Tensor]
    config: Mapping[str, object] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    colour: Mapping[str, list[float]] | None = None
    top1: float | None = None
    epoch: int | None = None

    @classmethod
    def open(cls, path: str | Path = "") -> Weights:
        """Read weights.

        Args:
            path: a file (ours, also as .safetensors or .onnx, or a checkpoint of the reference's classes), a name of
                `shipped_weights()`, a run folder (its best.pt), or "" for the run that finished last. Relative paths
                start at the repository root.

        Raises:
            WeightsError: no such file, not a file of weights, or one that holds anything but plain data.
        """
        file = find_weights(path)
        content = _read(file)
        state = {} if is_onnx(file) else unwrap_state(content, f"weights {file}")
        record = content if isinstance(content, Mapping) else {}
        config, classes, colour = (record.get(name) for name in ("config", "classes", "colour"))
        top1, epoch = record.get("top1"), record.get("epoch")
        return cls(
            file,
            state,
            # Another project's file may use the same words for something else: ours only where it has our form.
            config=dict(config) if isinstance(config, Mapping) and config.get("model") in variants() else {},
            classes=tuple(classes) if isinstance(classes, list | tuple) and _are(classes, str) else (),
            colour=colour if isinstance(colour, Mapping) and {*colour} == {"mean", "std"} else None,
            top1=float(top1) if _are([top1], int | float) else None,
            epoch=epoch if _are([epoch], int) else None,
        )

    @property
    def is_graph(self) -> bool:
        """Whether it is a graph of `attnet export`, which has no modules."""
        return is_onnx(self.path)

    @property
    def name(self) -> str:
        """As a user would type it."""
        shipped = {path: name for name, path in shipped_weights().items()}
        return shipped.get(self.path) or relative_to_root(self.path)

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
        options = study_options(self.config if is_same else {}) | study_options(given)
        unit = options.get("unit", "preact")
        if is_own_code(unit) and given.get("unit") is None:
            raise WeightsError(
                f"weights {self.path}: trained with unit={unit!r}, which is no part of attnet, and code is not run "
                f"because a weights file names it; if you trust it, give unit={unit!r} yourself"
            )
        return options


def _are(values: object, kind: type) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: `layout` is "attnet" or "reference"; `dropped` names what the network never uses."""

    layout: str
    loaded: int
    dropped: tuple[str, ...] = ()


def _read(path: Path) -> object:
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file")
    if path.suffix == SAFETENSORS:
        return read_safetensors(path)
    if is_onnx(path):
        return OnnxNetwork(path).checkpoint
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|class|global) ([\w.]+)", str(error))
        culprit = f" (it asks for {wanted[1]})" if wanted else ""
        raise WeightsError(
            f"weights {path}: refused, since it is damaged or holds more than tensors{culprit} and reading it "
            "could run code; save it again as a plain state dict: torch.save(model.state_dict(), path)"
        ) from None
    except Exception as error:  # torch raises many types for a damaged or foreign file
        raise WeightsError(f"weights {path}: not a readable PyTorch file ({_first_line(error)})") from None


def is_onnx(path: str | Path) -> bool:
    """Whether a weights file is a graph of `attnet.model.export`, which is run as it is."""
    return Path(path).suffix == ONNX


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
    """The names of `variants()` that a state dict (ours or the reference's) fits."""
    state = unwrap_state(state)
    if any(name.startswith("residual_block") for name in state):
        state, _ = from_reference(state)
    return [name for name in variants() if _fits(name, state)]


def unwrap_state(checkpoint: object, origin: str = "state dict") -> dict[str, Tensor]:
    """The innermost name -> tensor mapping, without wrapper prefixes."""
    for key in _NESTED:
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    if not isinstance(checkpoint, Mapping) or not checkpoint:
        raise WeightsError(f"{origin}: a mapping of names to tensors is needed, found {type(checkpoint).__name__}")
    odd = next((key for key, value in checkpoint.items() if not isinstance(value, Tensor)), None)
    if odd is not None:
        kind = type(checkpoint[odd]).__name__
        raise WeightsError(f"{origin}: entry {odd!r} is a {kind}; a mapping of names to tensors is needed")
    state = dict(checkpoint)
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def load_weights(
    model: nn.Module, path_or_state_dict: str | Path | Weights | Mapping[str, Tensor], *, new_head: bool = False
) -> LoadReport:
    """Load weights into a network of `build_model`, in place, whatever half- or full-precision type it has.

    Args:
        model: the network; its own dtype and device are kept.
        path_or_state_dict: our checkpoint (`last.pt`, `best.pt`, .safetensors), opened or not, a plain state dict, or
            a checkpoint of the reference's `ResidualAttentionModel_…` classes, with or without "module." before the
            names. The reference stores 1x1 shortcuts that its forward pass never uses; they are dropped.
        new_head: leave the model's last linear layer as it is, and drop the file's: for other classes.

    Returns:
        What was loaded and what was dropped.

    Raises:
        WeightsError: names or shapes that do not fit, each listed, with the network they would fit if any.
    """
    given = path_or_state_dict
    if isinstance(given, str | Path) and not resolve_path(given).is_file():
        raise WeightsError(f"weights {given}: no such file")
    opened = Weights.open(given) if isinstance(given, str | Path) else given
    if isinstance(opened, Weights):
        origin, state = str(opened.path), opened.state
        if opened.is_graph:
            raise WeightsError(
                f"weights {origin}: an ONNX graph has no modules, hence no masks, and cannot be trained; notebooks/"
                "evaluate.ipynb takes it, anything else the checkpoint or the .safetensors file of the same network"
            )
    else:
        origin, state = "state dict", unwrap_state(opened)
    layout, own, dropped = "attnet", state, ()
    if any(name.startswith("residual_block") for name in state):
        layout = "reference"
        own, dropped = from_reference(state)
    model = unwrap(model)
    current = model.state_dict()
    # Weights saved before PyTorch 0.4.1 lack this counter, which no forward pass here reads.
    counters = {n: v for n, v in current.items() if n.endswith("num_batches_tracked") and n not in own}
    head = {name: value for name, value in current.items() if new_head and name.startswith(_HEAD)}
    dropped += tuple(name for name in own if name in head)
    own = {**own, **counters, **head}
    wanted = {name: value.shape for name, value in current.items()}
    problems = _differences(wanted, own)
    if problems:
        lines = [f"{origin}: these weights do not fit {_describe(model)}:", *problems]
        if fits := fitting_variants(own):
            lines.append(f"they fit model={' or '.join(fits)} with num_classes={len(own['fc.weight'])}")
        if not _differences(_without_head(wanted), _without_head(own)):
            lines.append("only the last layer differs: new_head=True loads all the others")
        raise WeightsError("\n  ".join(lines))
    model.load_state_dict(own)
    return LoadReport(layout, len(own) - len(head), dropped)


def _without_head(entries: Mapping[str, object]) -> dict:
    return {name: value for name, value in entries.items() if not name.startswith(_HEAD)}


def _differences(wanted: Mapping[str, torch.Size], found: Mapping[str, Tensor]) -> list[str]:
    """A line for each kind of difference, the first few names spelled out."""

    def line(title: str, entries: list[str]) -> list[str]:
        more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
        return [f"{title} ({len(entries)}): {', '.join(entries[:_SHOWN])}{more}"] if entries else []

    missing = [n for n in wanted if n not in found]
    unknown = [n for n in found if n not in wanted]
    shapes = [
        f"{n} {tuple(found[n].shape)} where {tuple(wanted[n])} is needed"
        for n in wanted
        if n in found and found[n].shape != wanted[n]
    ]
    return line("missing", missing) + line("not in this network", unknown) + line("other shape", shapes)


def _describe(model: nn.Module) -> str:
    if isinstance(model, ResidualAttentionNetwork):
        return f"{model.variant.label}, num_classes={model.num_classes}"
    return type(model).__name__


def _fits(name: str, state: Mapping[str, Tensor]) -> bool:
    head = state.get("fc.weight")
    if head is None or head.ndim != 2:
        return False
    shapes = _shapes(name)
    ends = {end: torch.Size([len(head), *shapes[end][1:]]) for end in ("fc.weight", "fc.bias")}
    return not _differences(shapes | ends, state)


@functools.cache
def _shapes(name: str) -> dict[str, torch.Size]:
    """The shapes of a network's weights, found without any memory for them."""
    with torch.device("meta"):
        return {key: value.shape for key, value in build_model(name).state_dict().items()}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
