"""attnet: a workbench for residual attention networks: train them, reproduce them, look into them.

Names are loaded when they are first used: `import attnet` alone works, and `python -m attnet.doctor` says what is
wrong, even where torch cannot be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnet.config import TrainConfig
    from attnet.data import load_dataset
    from attnet.engine import fit
    from attnet.evaluation import Evaluation, evaluate, evaluate_weights
    from attnet.export import export_onnx, export_safetensors
    from attnet.launcher import launch
    from attnet.masks import capture, capture_masks
    from attnet.model import build_model, variants
    from attnet.plan import make_plan, plan_evaluation
    from attnet.pretrained import Pretrained, load_pretrained, open_pretrained
    from attnet.result import Result
    from attnet.weights import load_weights

__version__ = "0.1.0"
_HINT = "`python -m attnet.doctor` says what to mend"
_HOMES = {
    "config": ("TrainConfig",),
    "data": ("load_dataset",),
    "engine": ("fit",),
    "evaluation": ("Evaluation", "evaluate", "evaluate_weights"),
    "export": ("export_onnx", "export_safetensors"),
    "launcher": ("launch",),
    "masks": ("capture", "capture_masks"),
    "model": ("build_model", "variants"),
    "plan": ("make_plan", "plan_evaluation"),
    "pretrained": ("Pretrained", "load_pretrained", "open_pretrained"),
    "result": ("Result",),
    "weights": ("load_weights",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = [
    "Evaluation",
    "Pretrained",
    "Result",
    "TrainConfig",
    "build_model",
    "capture",
    "capture_masks",
    "evaluate",
    "evaluate_weights",
    "export_onnx",
    "export_safetensors",
    "fit",
    "launch",
    "load_dataset",
    "load_pretrained",
    "load_weights",
    "make_plan",
    "open_pretrained",
    "plan_evaluation",
    "variants",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name, name)
    if importlib.util.find_spec(f"attnet.{home}") is None:
        raise AttributeError(f"module 'attnet' has no attribute {name!r}; its names are {', '.join(__all__)}")
    try:
        module = importlib.import_module(f"attnet.{home}")
    except (ImportError, RuntimeError, OSError) as error:  # what a broken torch or torch_npu raises
        cause = str(error).removesuffix(f"\n{_HINT}")  # of a name that this one's module asked for
        raise ImportError(f"attnet.{name}: {cause}\n{_HINT}") from error
    value = getattr(module, name) if name in _HOME_OF else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
