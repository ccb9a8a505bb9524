"""attnet: a workbench for residual attention networks: train them, reproduce them, look into them.

Names are loaded when they are first used: `import attnet` alone works, and `attnet doctor` says what is wrong, even
where torch cannot be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

from attnet.base import VERSION

if TYPE_CHECKING:
    from attnet.data.registry import load_dataset
    from attnet.engine.evaluation import Evaluation, evaluate, evaluate_weights
    from attnet.engine.parameters import TrainConfig
    from attnet.engine.plan import plan_evaluation
    from attnet.engine.result import Result
    from attnet.explore_command import explore
    from attnet.masks.capture import capture, capture_masks
    from attnet.masks.open import open_pretrained
    from attnet.model.export import export_onnx, export_safetensors
    from attnet.model.pretrained import Pretrained, load_pretrained
    from attnet.model.variants import build_model, variants
    from attnet.model.weights.loading import load_weights
    from attnet.together import fit, launch, make_plan
    from attnet.watch_command import watch

__version__ = VERSION
_HINT = "`attnet doctor` says what to mend"
# Module -> the public names that it holds.
_HOMES = {
    "data.registry": ("load_dataset",),
    "engine.evaluation": ("Evaluation", "evaluate", "evaluate_weights"),
    "engine.parameters": ("TrainConfig",),
    "engine.plan": ("plan_evaluation",),
    "engine.result": ("Result",),
    "explore_command": ("explore",),
    "masks.capture": ("capture", "capture_masks"),
    "masks.open": ("open_pretrained",),
    "model.export": ("export_onnx", "export_safetensors"),
    "model.pretrained": ("Pretrained", "load_pretrained"),
    "model.variants": ("build_model", "variants"),
    "model.weights.loading": ("load_weights",),
    "together": ("fit", "launch", "make_plan"),
    "watch_command": ("watch",),
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
    "explore",
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
    "watch",
]


if "IPython" in sys.modules:  # a notebook, perhaps
    importlib.import_module("attnet.papermill_engine").in_kernel()


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
