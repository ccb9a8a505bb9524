"""Which apex is installed, and what attnet can use of it. Neither torch nor apex is imported to find out.

Several packages go by this name: NVIDIA's (which had `amp` until 2025), Ascend's, which is NVIDIA's of 2020 with
combined gradients and fused optimisers for NPUs, and a web toolkit, which is what PyPI calls `apex`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

# Part -> the file that defines it.
_FILES = {
    "amp": "amp/frontend.py",
    "NpuFusedSGD": "optimizers/npu_fused_sgd.py",
    "FusedSGD": "optimizers/fused_sgd.py",
}
# Kind -> the compiled module without which it cannot be used: Ascend's amp imports it, FusedSGD asks for it.
_COMPILED = {"ascend": "change_data_ptr", "nvidia-amp": "amp_C", "nvidia": "amp_C"}
_OWNER = {"ascend": "Ascend's apex", "nvidia-amp": "NVIDIA's former apex", "nvidia": "NVIDIA's apex"}
_DEVICE = {"ascend": "NPU", "nvidia-amp": "GPU", "nvidia": "GPU"}
_USE = {
    "ascend": "mixed precision by its amp with combined gradients, and the optimiser NpuFusedSGD at O2",
    "nvidia-amp": "mixed precision by its amp, and the optimiser FusedSGD",
    "nvidia": "the optimiser FusedSGD alone, since it has no amp any more",
    "unrelated": "nothing, since it is another project of that name",
    "none": "nothing, since there is none",
}


@dataclass(frozen=True)
class Apex:
    """An installed apex.

    Attributes:
        kind: "ascend" (amp with combined gradients and NpuFusedSGD), "nvidia-amp" (NVIDIA's while it had amp),
            "nvidia" (today's: FusedSGD, no amp), "unrelated" (another project) or "none".
        version: of the distribution, "" if unknown.
        path: folder of the package, "" when there is none.
        parts: those of amp, NpuFusedSGD and FusedSGD that it has, compiled modules they need included.
    """

    kind: str
    version: str = ""
    path: str = ""
    parts: tuple[str, ...] = ()

    @property
    def use(self) -> str:
        """What attnet can use of it, as part of a sentence."""
        if self.kind in _COMPILED and not self.parts:
            return f"nothing, since its compiled module {_COMPILED[self.kind]} is missing"
        return _USE[self.kind]

    @property
    def has_amp(self) -> bool:
        return "amp" in self.parts

    @property
    def name(self) -> str:
        """Whose apex it is, with its version, as part of a sentence."""
        return " ".join(filter(None, (_OWNER.get(self.kind, "the installed apex"), self.version)))


def find() -> Apex:
    """The apex that `import apex` would run, told by its files."""
    spec = importlib.util.find_spec("apex")
    # A folder without __init__.py, such as a clone of the source beside a notebook, has no origin: not installed.
    if spec is None or spec.origin is None:
        return Apex("none")
    folder = Path(spec.origin).parent
    names = {part for part, file in _FILES.items() if spec.submodule_search_locations and (folder / file).is_file()}
    if {"amp", "NpuFusedSGD"} <= names:
        kind, wanted = "ascend", ("amp", "NpuFusedSGD")
    elif "FusedSGD" in names:
        kind, wanted = ("nvidia-amp", ("amp", "FusedSGD")) if "amp" in names else ("nvidia", ("FusedSGD",))
    else:
        kind, wanted = "unrelated", ()
    usable = kind in _COMPILED and importlib.util.find_spec(_COMPILED[kind]) is not None
    return Apex(kind, _version(folder), str(folder), wanted if usable else ())


def _version(folder: Path) -> str:
    """Of the distribution beside the package, which for a source tree on the path there may not be."""
    found = importlib.metadata.distributions(name="apex", path=[str(folder.parent)])
    return next((distribution.version for distribution in found), "")


def choose(level: str, device_kind: str, apex: Apex | None = None) -> tuple[bool, str]:
    """Whether apex is used, and a sentence that says so.

    Args:
        level: opt level, O0 to O3.
        device_kind: NPU, GPU, MPS or CPU.
        apex: the installed one; found when not given.

    Returns:
        Whether apex is used, and the sentence for the plan: what is installed, what is missing, what happens
        instead and, where it can be mended, how.
    """
    apex = find() if apex is None else apex
    scales = level in ("O1", "O2")
    native = "native torch gives the same opt levels"
    fits = _DEVICE.get(apex.kind) == device_kind
    if fits and apex.parts and (scales or apex.kind == "nvidia"):
        return True, _used(level, apex)
    if not scales and apex.kind != "nvidia":
        return False, f"apex adds nothing at {level}; native torch is used"
    if device_kind not in ("NPU", "GPU"):
        return False, f"apex runs on an NPU or a GPU, not on a device of type {device_kind}; {native}"
    if apex.kind == "unrelated":
        mend = "pip uninstall apex removes it" if apex.version else f"it lies in {apex.path}"
        return False, f"{apex.name} is another project, no mixed precision: {mend}; {native}"
    if apex.kind == "none":
        return False, f"no apex is installed: {_where(device_kind)}; {native}"
    if not fits:
        return False, f"{apex.name} is for {_DEVICE[apex.kind]}s: {_where(device_kind)}; {native}"
    missing = _COMPILED[apex.kind]
    return False, f"{apex.name} lacks its compiled module {missing}: build it again with its extensions; {native}"


def _used(level: str, apex: Apex) -> str:
    if apex.kind == "ascend":
        optimizer = "apex's NpuFusedSGD" if level == "O2" else "torch's SGD"
        return f"{apex.name} does {level} with combined gradients and {optimizer}"
    if apex.kind == "nvidia-amp":
        return f"{apex.name} does {level} with its FusedSGD"
    return f"{apex.name} has no amp any more: native torch does {level}, with apex's FusedSGD as optimiser"


def _where(device_kind: str) -> str:
    """Where the apex for a device comes from."""
    if device_kind == "NPU":
        return "Ascend's is built from its source (Ascend/apex on gitee or gitcode), not installed from PyPI"
    return "NVIDIA's is built from its source with its CUDA extensions, not installed from PyPI"
