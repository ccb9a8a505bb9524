"""Files that other tools read: safetensors, a state dict with a record beside it, and ONNX, a network as a graph.

Both need a package of their own, which is asked for when such a file is.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from attnet.base.errors import AttnetError, WeightsError

ONNX, SAFETENSORS = ".onnx", ".safetensors"
# What a checkpoint's readers look at besides the weights. In a safetensors file, where values are strings, as JSON.
_RECORDED = ("config", "colour", "classes", "top1", "epoch")


def package(name: str, file: str | Path) -> ModuleType:
    """Import an optional package; AttnetError says which file needs it and how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AttnetError(
            f'{file}: needs the package {name.split(".")[0]} ({error}); pip install -e ".[export]" brings it'
        ) from None


def as_strings(record: Mapping[str, object]) -> dict[str, str]:
    """A record as such files keep it: strings as they are, anything else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in record.items()}


def read_safetensors(path: Path) -> dict[str, object]:
    """A safetensors file as a checkpoint: tensors on the CPU under `model`, and what it records.

    Raises:
        WeightsError: not a safetensors file. AttnetError: the package is missing.
    """
    safetensors = package("safetensors", path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            strings = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        record = {key: json.loads(strings[key]) for key in _RECORDED if key in strings}
    except Exception as error:  # the package has its own type for a damaged file; a foreign record is no JSON
        raise WeightsError(f"weights {path}: not a readable safetensors file ({error})") from None
    return {"model": state, **record}


class OnnxNetwork(nn.Module):
    """An ONNX file of `attnet export`, run by onnxruntime on the CPU with as many threads as torch.

    Images float32 [N, 3, S, S] in [0, 1] to logits float32 [N, K], on the images' device; any N, also for a graph of
    a fixed batch size, whose last run is filled up. It holds no weights and no modules, hence no masks.

    Raises:
        WeightsError: no ONNX file, or one that `attnet export` has not written. AttnetError: onnxruntime is missing.
    """

    def __init__(self, file: str | Path | bytes) -> None:
        super().__init__()
        name = "the graph" if isinstance(file, bytes) else f"weights {file}"
        runtime = package("onnxruntime", name)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            source = file if isinstance(file, bytes) else str(file)
            self.session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a type for each thing that can be wrong
            raise WeightsError(f"{name}: not a readable ONNX file ({str(error).splitlines()[0][:200]})") from None
        self.record = self.session.get_modelmeta().custom_metadata_map
        if not {"classes", "config"} <= set(self.record):
            raise WeightsError(f"{name}: not written by attnet export (no classes and config in its metadata)")
        self.classes = tuple(json.loads(self.record["classes"]))
        (images,) = self.session.get_inputs()
        self.batch_size = images.shape[0] if isinstance(images.shape[0], int) else None

    @property
    def checkpoint(self) -> dict[str, object]:
        """What a checkpoint would record of it; images are to come as they are, since colours are its own affair."""
        return {"config": json.loads(self.record["config"]) | {"normalize": False}, "classes": list(self.classes)}

    def forward(self, images: Tensor) -> Tensor:
        parts = [self._run(part) for part in images.cpu().split(self.batch_size or max(len(images), 1))]
        return torch.cat(parts).to(images.device)

    def _run(self, images: Tensor) -> Tensor:
        missing = (self.batch_size or 0) - len(images)
        whole = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing > 0 else images
        (logits,) = self.session.run(["logits"], {"images": whole.contiguous().numpy()})
        return torch.from_numpy(logits)[: len(images)]
