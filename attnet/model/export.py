"""`attnet export --pretrained WEIGHTS --output FILE`: a trained network for other tools, or as one small file.

FILE.onnx is the network as a graph, colours standardised inside: "images" float32 [N, 3, S, S] in [0, 1] to "logits"
[N, K]; for onnxruntime, or Ascend's ATC, which makes of it what runs on an NPU without torch. FILE.safetensors is its
weights with their record, read wherever this package takes weights; FILE.pt the same in half precision, as the package
ships its own.

Of torch's two exporters the older one is used: the newer one writes opset 18 or later only, and what it is asked to
convert to an older one it leaves as it is (torch 2.13).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from attnet.base import VERSION
from attnet.base.errors import ConfigError, SaveError, WeightsError, in_sentences, say
from attnet.base.files.atomic import save, write_bytes
from attnet.base.files.outputs import output_file
from attnet.base.files.paths import relative_to_root
from attnet.model.network import evaluating
from attnet.model.pretrained import SHIPPED, Pretrained, load_pretrained
from attnet.model.weights.formats import ONNX, SAFETENSORS, as_strings, package
from attnet.model.weights.graphs import OnnxNetwork

if TYPE_CHECKING:
    from onnx import GraphProto

# Resize knows align_corners from 11 on; Huawei's lists of ONNX operators for ATC go to 18 (CANN 7.0 to 9.1).
OPSETS = range(11, 19)
# The newest of ONNX 1.12, which those lists are for, and the newest for which they describe Resize. CANN before 7.0
# named 9 to 13.
DEFAULT_OPSET = 17
HALF = ".pt"
TOLERANCE = 1e-4  # of the largest logit
_TESTED = 3  # random images


def export_onnx(
    network: Pretrained | str | Path,
    file: str | Path,
    *,
    dynamic_batch: bool = True,
    opset: int = DEFAULT_OPSET,
    batch_size: int = 1,
) -> Path:
    """Write a network as an ONNX graph, atomically.

    Batch norms that follow a convolution are folded into it; up-sampling is `Resize` by the constant 2 with
    align_corners, so that no shape is computed in the graph. The file's metadata hold `network`, `classes` (JSON),
    `config` (JSON, what it was trained with), `weights` (where they came from) and `attnet` (its version). Where
    onnxruntime is installed, the graph is run there on random images before it is written.

    Args:
        network: an opened network, or weights as `load_pretrained` takes them.
        file: ends in .onnx; a relative path starts at the repository root.
        dynamic_batch: True: N is free. False: N is `batch_size`.
        opset: version of ONNX's operators, 11 to 18.
        batch_size: images a run of a graph whose batch is not dynamic.

    Returns:
        The absolute path of the file.

    Raises:
        ConfigError: a wrong suffix, folder, opset or batch size. AttnetError: the package onnx is missing.
        SaveError: the graph's logits differ from torch's by more than 1e-4 of the largest; nothing is written.
        WeightsError: as `load_pretrained`.
    """
    path = _place(file, ONNX)
    if opset not in OPSETS:
        raise ConfigError(
            f"opset={opset}: {OPSETS[0]} to {OPSETS[-1]} are written; older ones cannot up-sample with align_corners, "
            "and ATC takes no newer one"
        )
    if batch_size < 1 or (dynamic_batch and batch_size != 1):
        raise ConfigError(f"batch_size={batch_size}: at least 1, and only with dynamic_batch=False; else any N will do")
    package("onnx", path)
    network = network if isinstance(network, Pretrained) else load_pretrained(network)
    content = _graph(network, dynamic_batch, opset, batch_size)
    if importlib.util.find_spec("onnxruntime"):
        difference = logits_difference(network, content)
        if not difference <= TOLERANCE:  # nan is none either
            raise SaveError(f"{path}: not written, since its logits differ from torch's by {difference:.1e}, relative")
    write_bytes(path, content)
    return path


def export_safetensors(network: Pretrained | str | Path, file: str | Path) -> Path:
    """Write a network's weights (float32) and their record as a safetensors file, atomically.

    `load_weights`, `load_pretrained` and every parameter `pretrained` read it. The metadata are those of
    `export_onnx`, and `colour`, `top1` (per cent), `epoch` as JSON.

    Args:
        network: an opened network, or weights as `load_pretrained` takes them.
        file: ends in .safetensors; a relative path starts at the repository root.

    Returns:
        The absolute path of the file.

    Raises:
        ConfigError: a wrong suffix or folder. AttnetError: the package safetensors is missing.
        WeightsError: as `load_pretrained`.
    """
    path = _place(file, SAFETENSORS)
    safetensors = package("safetensors.torch", path)
    network = network if isinstance(network, Pretrained) else load_pretrained(network)
    state = {name: value.cpu().contiguous() for name, value in network.model.state_dict().items()}
    record = _record(network) | {"top1": network.top1, "epoch": network.epoch}
    record |= {"colour": network.colour} if network.colour else {}
    write_bytes(path, safetensors.save(state, as_strings(record)))
    return path


def export_half(network: Pretrained | str | Path, file: str | Path) -> Path:
    """Write the weights in half precision with their record, atomically: half the size, as the package ships its own.

    Integers and the running statistics of batch norms keep their types: a variance may exceed what half precision
    holds.

    Args:
        network: an opened network, or weights as `load_pretrained` takes them.
        file: ends in .pt; a relative path starts at the repository root.

    Returns:
        The absolute path of the file.

    Raises:
        ConfigError: a wrong suffix or folder. WeightsError: a value that half precision cannot hold.
    """
    path = _place(file, HALF)
    network = network if isinstance(network, Pretrained) else load_pretrained(network)
    state = {}
    for name, value in network.model.state_dict().items():
        state[name] = value
        if value.is_floating_point() and "running" not in name:
            state[name] = value.half()
            if not state[name].isfinite().all():
                raise WeightsError(f"weights {network.weights}: {name} exceeds what half precision holds")
    config = {**network.config, "model": network.model.variant.name, "num_classes": network.model.num_classes}
    record = {"config": config, "classes": list(network.classes), "colour": network.colour}
    save({"model": state, "top1": network.top1, "epoch": network.epoch, **record}, path)
    return path


def logits_difference(network: Pretrained, file: str | Path | bytes) -> float:
    """The largest difference of an ONNX file's (or its content's) logits from torch's, relative to the largest logit.

    On random images, in onnxruntime on the CPU.
    """
    device = next(network.model.parameters()).device
    images = torch.rand(_TESTED, 3, network.size, network.size, generator=torch.Generator().manual_seed(0))
    with evaluating(network.model):
        expected = network.model(images.to(device)).cpu()
    return ((OnnxNetwork(file)(images) - expected).abs().max() / expected.abs().max()).item()


def _place(file: str | Path, suffix: str) -> Path:
    return output_file(file, (suffix,))


def _record(network: Pretrained) -> dict[str, object]:
    known = {"model": network.model.variant.name, "num_classes": network.model.num_classes}
    return {
        "attnet": VERSION,
        "network": network.model.variant.name,
        "classes": list(network.classes),
        "weights": network.weights,
        "config": {**network.config, **known},
    }


def _graph(network: Pretrained, dynamic_batch: bool, opset: int, batch_size: int) -> bytes:
    import onnx

    images = torch.zeros(batch_size, 3, network.size, network.size, device=next(network.model.parameters()).device)
    free = {"images": {0: "N"}, "logits": {0: "N"}} if dynamic_batch else None
    buffer = io.BytesIO()
    with evaluating(network.model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older exporter, which is meant
        torch.onnx.export(
            network.model,
            (images,),
            buffer,
            dynamo=False,
            opset_version=opset,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes=free,
        )
    model = onnx.load_from_string(buffer.getvalue())
    _tidy(model.graph)
    onnx.helper.set_model_props(model, as_strings(_record(network)))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _tidy(graph: GraphProto) -> None:
    """Up-sample by a constant, as ATC wants it, and leave out what nothing reads then.

    The exporter gives Resize an output size that it computes from shapes. At the sizes of `variants()` each
    up-sampling undoes one pooling of an even side, so that it doubles exactly.
    """
    import numpy as np
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "doubled"))
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    for node in graph.node:
        inputs = [same.get(name, name) for name in node.input]
        node.input[:] = [*inputs[:2], "doubled"] if node.op_type == "Resize" else inputs
    used = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    for field, left in ((graph.node, kept[::-1]), (graph.initializer, constants)):
        del field[:]
        field.extend(left)


# Ending of a file -> what writes it.
FORMS = {ONNX: export_onnx, SAFETENSORS: export_safetensors, HALF: export_half}


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 after a sentence when it cannot be done."""
    parser = argparse.ArgumentParser(prog="attnet export", description="Write a network for other tools.")
    parser.add_argument("--pretrained", default="", help="weights, as attnet.load_pretrained; empty: the shipped ones")
    parser.add_argument(
        "--output", required=True, help="FILE.onnx, FILE.safetensors or FILE.pt, from the repository root"
    )
    parser.add_argument("--dynamic_batch", choices=["True", "False"], help="ONNX: any batch size (default True)")
    parser.add_argument("--opset", type=int, help=f"ONNX: version of the operators (default {DEFAULT_OPSET})")
    parser.add_argument("--batch_size", type=int, help="ONNX: images a run, with --dynamic_batch False (default 1)")
    words = vars(parser.parse_args(arguments))
    weights, output = words.pop("pretrained") or SHIPPED["cifar10"], words.pop("output")
    options = {name: value for name, value in words.items() if value is not None}
    if "dynamic_batch" in options:
        options["dynamic_batch"] = options["dynamic_batch"] == "True"
    file = output_file(output, tuple(FORMS))
    if options and file.suffix != ONNX:
        raise ConfigError(f"--{next(iter(options))}: only for {ONNX}; leave it out for {file.suffix}")
    network, write = load_pretrained(weights), FORMS[file.suffix]
    path = write(network, output, **options)
    say(f"{relative_to_root(path)}: {path.stat().st_size / 1e6:.2f} MB, {network.describe()}")
    if path.suffix == ONNX and importlib.util.find_spec("onnxruntime"):
        difference = logits_difference(network, path)
        say(f"onnxruntime: logits within {difference:.1e} of torch's on {_TESTED} random images, relative")
    elif path.suffix == ONNX:
        say('onnxruntime is not installed, so the graph was not run; pip install -e ".[export]" brings it')
    return 0
