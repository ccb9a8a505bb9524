"""What other projects keep in a checkpoint beside their weights, and is left out when it is read.

`torch.load(weights_only=True)` refuses a file for one figure that numpy made, or for the arguments of a script. Of a
name in the tables here it gets a stand-in, which runs nothing, imports nothing and keeps nothing; any other name is
refused as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

# Modules, whole or from a dot on, and who puts their values into checkpoints.
LEFT_OUT = {
    "numpy": "figures and curves",
    "argparse": "arguments of a script",
    "types.SimpleNamespace": "the same",
    "__main__": "classes of the script that trained",
    "pathlib": "paths",
    "datetime": "dates",
    **dict.fromkeys(
        (f"builtins.{name}" for name in ("slice", "range", "frozenset", "object", "list", "dict", "tuple")), ""
    ),
    **dict.fromkeys(
        (f"builtins.{name}" for name in ("int", "float", "bool", "str", "bytes")), "types that defaults have"
    ),
    "collections.defaultdict": "",
    "collections.deque": "figures of the last steps",
    "copyreg._reconstructor": "classes without a state of their own",
    "omegaconf": "Hydra, Lightning",
    "lightning": "its hyperparameters",
    "lightning_fabric": "the same",
    "pytorch_lightning": "the same",
    "yacs": "fvcore, detectron2",
    "easydict": "",
    "addict": "mmcv",
    "mmcv": "",
    "mmengine": "",
    "ml_collections": "",
    "timm": "",
    "torch.torch_version": "",
    "torch.optim.lr_scheduler": "schedules saved whole",
    "typing": "omegaconf",
}
# Those of them that are filled like a dict or a list, which torch does with nothing else.
_DICTS = {"defaultdict", "AttributeDict", "CfgNode", "EasyDict", "Dict", "ConfigDict"}
_LISTS = {"deque"}


class _Nothing:
    """Takes what it is made of and keeps nothing. A key of a dict, if need be."""

    def __new__(cls, *_: object, **__: object) -> object:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _LikeADict:
    def __new__(cls, *_: object) -> Counter:  # the one kind of dict that torch gives a state as well
        return Counter()


class _LikeAList:
    def __new__(cls, *_: object) -> list:
        return []


def stand_ins(names: Iterable[str]) -> list[tuple[type, str]]:
    """For `torch.serialization.safe_globals`: a stand-in for each of the names ("module.name") that is left out."""
    found = []
    for name in {_today(name) for name in names}:
        if any(name == left or name.startswith(f"{left}.") for left in LEFT_OUT):
            last = name.rpartition(".")[2]
            kind = _LikeADict if last in _DICTS else _LikeAList if last in _LISTS else _Nothing
            found.append((type(name, (kind,), {}), name))  # of its own name, for errors
    return found


def _today(name: str) -> str:
    """Of a module whose name Python 2 had otherwise, which pickles go on to write."""
    for old, new in (("__builtin__.", "builtins."), ("copy_reg.", "copyreg.")):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
