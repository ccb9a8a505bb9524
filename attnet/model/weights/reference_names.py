"""Names of the reference's state dicts -> ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# The reference's names, part by part. Its attention modules come in two spellings: the 32-pixel classes say what a
# part does ("down_residual_blocks1"), the larger ones number the parts of the mask branch ("softmax1_blocks").
_ENTRY = re.compile(r"residual_block(\d)\.(.+)")
_MODULE = re.compile(r"attention_module(\d)(?:_(\d))?\.(\w+)\.(.+)")
_OUTER = {"conv1": "stem", "mpool2": "norm", "fc": "fc"}
_BRANCHES = {"first_residual_blocks": "pre.0", "trunk_branches": "trunk", "last_blocks": "post.0"}
_HEAD = {"0": "norm1", "2": "conv1", "3": "norm2", "5": "conv2"}


def _mask_parts(depth: int) -> dict[str, str]:
    """The reference's parts of a mask branch that pools `depth` times -> ours."""
    level = ["mask.levels" + ".below" * k for k in range(max(depth, 1))]
    parts = {f"skip{k + 1}_connection_residual_block": f"{level[k]}.skip" for k in range(depth - 1)}
    down = [f"{name}.units.0" for name in level[:-1]]
    up = [f"{name}.up.0" for name in reversed(level[:-1])]
    numbered = [*down, f"{level[-1]}.units", *up, "mask.head"]
    parts |= {f"softmax{k + 1}_blocks": name for k, name in enumerate(numbered)}
    return parts | {
        "down_residual_blocks1": f"{level[0]}.units.0",
        "middle_2r_blocks": f"{level[-1]}.units",
        "up_residual_blocks1": f"{level[0]}.up.0",
        "conv1_1_blocks": "mask.head",
    }


def from_reference(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A reference state dict under our names, and the names of the shortcuts its forward pass never uses."""
    is_32_pixel = any("conv1_1_blocks" in name for name in state)
    deepest = 3 if is_32_pixel else 4  # poolings of stage s are deepest - s
    first_stage = 0 if any(name.startswith("residual_block0.") for name in state) else 1
    own, dropped = {}, []
    for name, value in state.items():
        entry, module = _ENTRY.fullmatch(name), _MODULE.fullmatch(name)
        if name.endswith("conv4.weight") and (module or (entry and int(entry[1]) > 4)):
            dropped.append(name)
        elif entry:
            number = int(entry[1])
            place = f"tail.{number - 4}" if number > 3 else f"stages.stage{number - first_stage + 1}.entry"
            own[f"{place}.{_unit_name(entry[2])}"] = value
        elif module:
            stage, part, rest = int(module[1]), module[3], module[4]
            place = f"stages.stage{stage - first_stage + 1}.attention.{int(module[2] or 1) - 1}"
            ours = _BRANCHES.get(part) or _mask_parts(deepest - stage).get(part, part)
            if ours == "mask.head":
                index, _, leaf = rest.partition(".")
                rest = f"{_HEAD.get(index, index)}.{leaf}"
            own[f"{place}.{ours}.{_unit_name(rest)}"] = value
        else:
            outer, _, rest = name.partition(".")
            rest = rest.removeprefix("0.") if outer == "mpool2" else rest
            own[f"{_OUTER.get(outer, outer)}.{rest}"] = value
    return own, tuple(dropped)


def _unit_name(rest: str) -> str:
    """ "0.bn1.weight" -> "0.norm1.weight", "conv4.weight" -> "shortcut.weight"."""
    return rest.replace("conv4.", "shortcut.").replace("bn", "norm")
