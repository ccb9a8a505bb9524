"""Loading weights into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from attnet.base.errors import WeightsError
from attnet.model.network import unwrap
from attnet.model.weights.contents import first_not_finite
from attnet.model.weights.fitting import LoadReport, whole_state
from attnet.model.weights.opened import Weights
from attnet.model.weights.wrappers import unwrap_state


def load_weights(
    model: nn.Module, path_or_state_dict: str | Path | Weights | Mapping[str, Tensor], *, new_head: bool = False
) -> LoadReport:
    """Load weights into a network of `build_model`, in place, whatever half- or full-precision type it has.

    Args:
        model: the network; its own dtype and device are kept.
        path_or_state_dict: weights, opened or as `Weights.open` takes them; or a plain state dict, ours or of the
            reference's `ResidualAttentionModel_…` classes, in any wrapper of `attnet.model.weights.wrappers`. The
            reference stores 1x1 shortcuts that its forward pass never uses; they are dropped.
        new_head: leave the model's last linear layer as it is, and drop the file's: for other classes.

    Returns:
        What was loaded, what was dropped, and what was not there.

    Raises:
        WeightsError: names or shapes that do not fit, each listed, with the network they would fit if any; values
            that are no finite numbers.
    """
    given = path_or_state_dict
    opened = Weights.open(given) if isinstance(given, str | Path) else given
    if isinstance(opened, Weights):
        origin, state, peeled = f"weights {opened.path}", opened.state, opened.peeled
        if opened.is_graph:
            raise WeightsError(
                f"{origin}: an ONNX graph has no modules, hence no masks, and cannot be trained; notebooks/"
                "evaluate.ipynb takes it, anything else the checkpoint or the .safetensors file of the same network"
            )
    else:
        found = unwrap_state(opened)
        origin, state, peeled = "state dict", found.state, found.peeled
    model = unwrap(model)
    own, report = whole_state(model, state, origin, peeled, new_head)
    current = model.state_dict()
    if wrong := first_not_finite({name: own[name].to(value.dtype) for name, value in current.items()}):
        raise WeightsError(
            f"{origin}: {wrong} holds values that are no finite numbers (or none in "
            f"{str(current[wrong].dtype).removeprefix('torch.')}), as training leaves them that has diverged; take an "
            "earlier checkpoint"
        )
    model.load_state_dict(own)
    return report
