"""Reading weights into a network: our own checkpoints, plain state dicts, and the reference's five classes.

Files are read by `torch.load(weights_only=True)`, which rebuilds tensors and refuses to run code; .safetensors and
.onnx files hold no code.
"""

from __future__ import annotations

import functools
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from attnet.errors import WeightsError
from attnet.formats import ONNX, SAFETENSORS, OnnxNetwork, read_safetensors
from attnet.model import ResidualAttentionNetwork, build_model, study_options, unwrap, variants
from attnet.paths import resolve_path
from attnet.reference_names import from_reference
from attnet.units import is_own_code

# Wrappers that DistributedDataParallel and torch.compile put in front of every name.
_PREFIXES = ("module.", "_orig_mod.")
# Where training scripts keep the state dict inside a larger checkpoint.
_NESTED = ("model", "state_dict", "model_state_dict", "net")
_SHOWN = 6
_HEAD = "fc."  # the last linear layer


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: `layout` is "attnet" or "reference"; `dropped` names what the network never uses."""

    layout: str
    loaded: int
    dropped: tuple[str, ...] = ()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a file, on the CPU, whatever checkpoint it is wrapped in.

    Raises:
        WeightsError: no such file, not a PyTorch or safetensors file, or one that holds anything but plain data.
    """
    if is_onnx(path):
        raise WeightsError(
            f"weights {path}: an ONNX graph has no modules, hence no masks, and cannot be trained; notebooks/"
            "evaluate.ipynb takes it, anything else the checkpoint or the .safetensors file of the same network"
        )
    return unwrap_state(_read(Path(path)), str(path))


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
    """Whether a weights file is a graph of `attnet.export`, which is run as it is."""
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


def recorded_config(path: str | Path) -> dict[str, object]:
    """The parameters a checkpoint of ours was trained with; {} for any other weights file."""
    config = read_checkpoint(path).get("config")
    return dict(config) if isinstance(config, Mapping) else {}


def recorded_options(
    recorded: Mapping[str, object], given: Mapping[str, object], path: str | Path
) -> dict[str, object]:
    """The options for `build_model` of a checkpoint: those given, else those among its `recorded` parameters.

    Raises:
        WeightsError: the file names a unit outside this package, which would run code; it must be given.
    """
    options = study_options(recorded) | study_options(given)
    unit = options.get("unit", "preact")
    if is_own_code(unit) and given.get("unit") is None:
        raise WeightsError(
            f"weights {path}: trained with unit={unit!r}, which is no part of attnet, and code is not run because a "
            f"weights file names it; if you trust it, give unit={unit!r} yourself"
        )
    return options


def read_checkpoint(path: str | Path) -> Mapping[str, object]:
    """A checkpoint with all that was saved beside the weights (of an ONNX file that alone); as `read_weights`."""
    checkpoint = _read(Path(path))
    return checkpoint if isinstance(checkpoint, Mapping) else {}


def fitting_variants(state: Mapping[str, Tensor]) -> list[str]:
    """The names of `variants()` that a state dict (ours or the reference's) fits."""
    state = unwrap_state(state)
    if any(name.startswith("residual_block") for name in state):
        state, _ = from_reference(state)
    return [name for name in variants() if _fits(name, state)]


def count_classes(state: Mapping[str, Tensor]) -> int:
    """The outputs of the network that a state dict (ours or the reference's) is of; 0 without a last layer."""
    head = unwrap_state(state).get("fc.weight")
    return 0 if head is None else head.shape[0]


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
    model: nn.Module, path_or_state_dict: str | Path | Mapping[str, Tensor], *, new_head: bool = False
) -> LoadReport:
    """Load weights into a network of `build_model`, in place, whatever half- or full-precision type it has.

    Args:
        model: the network; its own dtype and device are kept.
        path_or_state_dict: our checkpoint (`last.pt`, `best.pt`, .safetensors), a plain state dict, or a checkpoint
            of the reference's `ResidualAttentionModel_…` classes, with or without "module." before the names. The
            reference stores 1x1 shortcuts that its forward pass never uses; they are dropped.
        new_head: leave the model's last linear layer as it is, and drop the file's: for other classes.

    Returns:
        What was loaded and what was dropped.

    Raises:
        WeightsError: names or shapes that do not fit, each listed, with the network they would fit if any.
    """
    if isinstance(path_or_state_dict, str | Path):
        origin, state = str(path_or_state_dict), read_weights(path_or_state_dict)
    else:
        origin, state = "state dict", unwrap_state(path_or_state_dict)
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
            lines.append(f"they fit model={' or '.join(fits)} with num_classes={count_classes(own)}")
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
