"""An ONNX graph of `attnet export`: looked through before it is run, then a network like others.

Whatever the file holds, nothing outside it is read and no memory is taken that a network of that kind would not take.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attnet.base.errors import WeightsError
from attnet.model.weights.contents import own_record
from attnet.model.weights.formats import FETCH_AGAIN, first_line, metadata_value, package

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

_LARGEST_FILE = (1 << 31) - 1  # bytes that protobuf reads
_LARGEST_BATCH = 1 << 16  # images; a graph's batch is filled up with empty ones
# Numbers that all layers together may compute of an image; attention92_448, the largest here, has 1.7e8.
_MOST_NUMBERS = 1 << 29
_FOREIGN = "not written by attnet export ({}); run it with onnxruntime itself"


class OnnxNetwork(nn.Module):
    """An ONNX file of `attnet export`, run by onnxruntime on the CPU with as many threads as torch.

    Images float32 [N, 3, S, S] in [0, 1] to logits float32 [N, K], on the images' device; any N, also for a graph of
    a fixed batch size, whose last run is filled up. It holds no weights and no modules, hence no masks.

    Raises:
        WeightsError: no ONNX file, one that `attnet export` has not written, or that would take memory without end.
        AttnetError: onnx or onnxruntime is missing.
    """

    def __init__(self, file: str | Path | bytes) -> None:
        super().__init__()
        self.name = name = "the graph" if isinstance(file, bytes) else f"weights {file}"
        onnx, runtime = package("onnx", name), package("onnxruntime", name)
        if not isinstance(file, bytes) and (size := Path(file).stat().st_size) > _LARGEST_FILE:
            raise WeightsError(f"{name}: {size:,} bytes, and an ONNX graph in one file has {_LARGEST_FILE:,} at most")
        content = file if isinstance(file, bytes) else Path(file).read_bytes()
        try:
            model = onnx.load_from_string(content)
        except Exception as error:  # protobuf has types of its own
            raise WeightsError(f"{name}: not a readable ONNX file ({first_line(error)}); {FETCH_AGAIN}") from None
        outputs = _check_ends(model, name)
        strings = {entry.key: entry.value for entry in model.metadata_props}
        texts = {key: metadata_value(strings[key], key, name) for key in ("classes", "config") if key in strings}
        self.record = own_record(texts, outputs, name)
        self.classes = self.record["classes"]
        if not self.classes or not self.record["config"]:
            raise WeightsError(f"{name}: {_FOREIGN.format('no classes and config of its own in the metadata')}")
        images = model.graph.input[0].type.tensor_type.shape.dim
        self.batch_size = images[0].dim_value if images[0].HasField("dim_value") else None
        if self.batch_size is not None and not 0 < self.batch_size <= _LARGEST_BATCH:
            raise WeightsError(
                f"{name}: made for batches of {self.batch_size:,} images, where 1 to {_LARGEST_BATCH:,} are run; "
                "export it again with another --batch_size"
            )
        _check_memory(model, self.batch_size or 1, name)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what is wrong is raised
        try:  # as bytes, so that no file beside it is looked for; it would print that it tries a second time
            with contextlib.redirect_stdout(io.StringIO()):
                self.session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a type for each thing that can be wrong
            raise WeightsError(f"{name}: not a graph that can be run ({first_line(error)}); {FETCH_AGAIN}") from None

    @property
    def checkpoint(self) -> dict[str, object]:
        """What a checkpoint would record of it; images are to come as they are, since colours are its own affair."""
        return {"config": {**self.record["config"], "normalize": False}, "classes": list(self.classes)}

    def forward(self, images: Tensor) -> Tensor:
        parts = [self._run(part) for part in images.cpu().split(self.batch_size or max(len(images), 1))]
        return torch.cat(parts).to(images.device)

    def _run(self, images: Tensor) -> Tensor:
        missing = (self.batch_size or 0) - len(images)
        whole = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing > 0 else images
        try:
            (logits,) = self.session.run(["logits"], {"images": whole.contiguous().numpy()})
        except Exception as error:  # as above
            shape = "x".join(map(str, whole.shape))
            raise WeightsError(f"{self.name}: cannot be run on images of {shape} ({first_line(error)})") from None
        return torch.from_numpy(logits)[: len(images)]


def _check_ends(model: ModelProto, name: str) -> int:
    """See that it goes from images to logits; how many of these there are."""
    ends = [("images", 4), ("logits", 2)]
    found = [(end.name, end.type.tensor_type.shape.dim) for end in (*model.graph.input, *model.graph.output)]
    if [(end, len(sides)) for end, sides in found] != ends:
        raise WeightsError(f"{name}: {_FOREIGN.format('it does not go from images [N, 3, S, S] to logits [N, K]')}")
    sides = [*found[0][1]][1:]
    if not all(0 < side.dim_value <= _LARGEST_BATCH for side in sides):
        raise WeightsError(f"{name}: {_FOREIGN.format('the size of its images is open or absurd')}")
    return found[1][1][1].dim_value


def _check_memory(model: ModelProto, batch: int, name: str) -> None:
    """See that all it computes is of known size, and no more than a network computes.

    A file of 200 bytes can ask for a tensor of any size, in a constant, by up-sampling or by padding; and loops,
    functions and graphs within graphs hide how much. The graphs of `attnet export` have none of these.
    """
    onnx = package("onnx", name)
    for tensor in _tensors(model):
        _check_tensor(tensor, name)
    kinds = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    inner = [node.op_type for node in model.graph.node if any(a.type in kinds for a in node.attribute)]
    if inner or model.functions or model.graph.sparse_initializer:
        what = f"a graph within operator {inner[0][:40]!r}" if inner else "functions or sparse tensors"
        raise WeightsError(f"{name}: {_FOREIGN.format(what)}")
    shapes = onnx.ModelProto()
    shapes.CopyFrom(model)
    del shapes.graph.value_info[:]  # what the file says of sizes is not believed
    shapes.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    shapes.graph.output[0].type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(shapes, check_type=True, strict_mode=True, data_prop=True).graph
    except Exception as error:  # the package has types of its own
        raise WeightsError(f"{name}: its sizes do not fit together ({first_line(error)}); {FETCH_AGAIN}") from None
    sizes = {value.name: _size(value) for value in (*inferred.value_info, *inferred.output)}
    numbers = 0
    for node in model.graph.node:
        for output in filter(None, node.output):
            if (size := sizes.get(output)) is None:
                raise WeightsError(f"{name}: {_FOREIGN.format(f'how large {_called(node)} becomes is open')}")
            numbers += size
    if numbers > _MOST_NUMBERS * batch:
        raise WeightsError(
            f"{name}: would compute {numbers // batch:.1e} numbers of an image, where at most {_MOST_NUMBERS:.1e} are "
            f"run; it is damaged or meant to fill the memory: {FETCH_AGAIN}"
        )


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _check_tensor(tensor: TensorProto, name: str) -> None:
    """See that its numbers lie in the file, all of them."""
    if tensor.external_data or tensor.data_location:
        raise WeightsError(f"{name}: {_FOREIGN.format(f'the numbers of {tensor.name[:40]!r} lie in another file')}")
    held = len(tensor.raw_data) or sum(map(len, (tensor.float_data, tensor.int32_data, tensor.int64_data)))
    if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > max(held, 1):
        raise WeightsError(
            f"{name}: {tensor.name[:40]!r} has the shape {[*tensor.dims][:6]} and {held:,} bytes; {FETCH_AGAIN}"
        )


def _size(value: ValueInfoProto) -> int | None:
    """How many numbers; None where a side is open."""
    sides = value.type.tensor_type.shape.dim
    is_open = any(not side.HasField("dim_value") or side.dim_value < 0 for side in sides)
    return None if is_open else math.prod(side.dim_value for side in sides)


def _called(node: NodeProto) -> str:
    return f"{node.op_type[:40]} {node.name[:60]!r}"
