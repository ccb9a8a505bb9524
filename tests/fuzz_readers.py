"""Every reader of files, some honest inputs of each, and how inputs are spoiled."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import pickle
import pickletools
import random
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from made import make_result
from PIL import Image

import attnet
from attnet.base.errors import AttnetError
from attnet.data import archive
from attnet.data.objects import read_pair
from attnet.data.pickles import read_pickle
from attnet.data.pictures import read_picture
from attnet.engine.parameters import TrainConfig
from attnet.engine.result import Result
from attnet.engine.run_folder import load_newest
from attnet.engine.status.watched import watched
from attnet.model.graphs import OnnxNetwork
from attnet.model.weights import Weights, load_weights
from attnet.study.records import read_records
from attnet.study.sweeps.configs import read_list

ROOT = Path(__file__).resolve().parents[1]

# ---- what is read: seeds, and the reader; it gets a folder that it may write to, and the input as a file there ----


def _pickles() -> list[bytes]:
    content = {"data": np.arange(96, dtype=np.uint8).reshape(2, 48), "labels": [3, np.int64(5)], b"names": ["a", b"b"]}
    return [pickle.dumps(content, protocol) for protocol in range(6)]


def _archives() -> list[bytes]:
    seeds = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name, size in (("f", 700), ("long" * 40, 30), ("g", 0)):
                info = tarfile.TarInfo(name[:99] if form == tarfile.USTAR_FORMAT else name)
                info.size, info.pax_headers = size, {"comment": "é"}
                tar.addfile(info, io.BytesIO(bytes(size)))
        seeds += [buffer.getvalue()[:4096], gzip.compress(buffer.getvalue()[:4096])]
    return seeds


def _weights() -> list[bytes]:
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny")
    small = {name: value[:1] if value.ndim else value for name, value in list(model.state_dict().items())[:6]}
    record = {"config": {"model": "attention56_tiny", "p": 1}, "classes": ["a", "b"], "top1": 50.0, "epoch": 3}
    seeds = []
    for content in (small, {"model": small, **record}, {"state_dict": {f"module.{n}": v for n, v in small.items()}}):
        for new in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=new)
            seeds.append(buffer.getvalue())
    return seeds


def _safetensors() -> list[bytes]:
    from safetensors.torch import save

    tensors = {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}
    record = {"config": json.dumps({"model": "attention56_tiny"}), "classes": '["a"]', "top1": "5.5"}
    return [save(tensors), save(tensors, record)]


def _read_weights(file: Path) -> None:
    opened = Weights.open(file)
    opened.model, opened.outputs  # noqa: B018 (properties that look into it)
    load_weights(attnet.build_model("attention56_tiny"), opened)


def _graphs() -> list[bytes]:
    """A small graph with all kinds of operators that ours have."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "kernel": np.full((4, 3, 3, 3), 0.1, np.float32), "scales": np.array([1, 1, 2, 2], np.float32),
        "head": np.full((2, 4), 0.1, np.float32), "gain": np.ones(4, np.float32), "sides": np.array([2, 3]),
    }  # fmt: skip
    norm, same = ["gain"] * 4, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    seeds = []
    for batch in ("N", 2):
        nodes = [
            helper.make_node("Conv", ["images", "kernel"], ["a"], **same, strides=[1, 1]),
            helper.make_node("BatchNormalization", ["a", *norm], ["b"]),
            helper.make_node("MaxPool", ["b"], ["c"], **same, strides=[2, 2]),
            helper.make_node("Resize", ["c", "", "scales"], ["d"], mode="linear"),
            helper.make_node("Sigmoid", ["d"], ["e"]),
            helper.make_node("Mul", ["b", "e"], ["f"]),
            helper.make_node("ReduceMean", ["f"], ["g"], axes=[2, 3], keepdims=0),
            helper.make_node("Gemm", ["g", "head"], ["logits"], transB=1),
        ]
        ends = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *sides])]
            for name, sides in (("images", [3, 8, 8]), ("logits", [2]))
        ]
        held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        graph = helper.make_graph(nodes, "g", *ends, held)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        config = json.dumps({"model": "attention56_tiny"})
        helper.set_model_props(model, {"classes": '["a", "b"]', "config": config})
        onnx.checker.check_model(model)
        seeds.append(model.SerializeToString())
    return seeds


def _run_graph(file: Path) -> None:
    network = OnnxNetwork(file)
    size = network.session.get_inputs()[0].shape[2]
    if isinstance(size, int) and size <= 64:
        network(torch.zeros(3, 3, size, size))


def _results() -> list[bytes]:
    return [json.dumps(make_result().to_json()).encode()]


def _read_result(file: Path) -> None:
    file.rename(file.with_name("result.json"))
    Result.load(file.parent)


def _signs() -> list[bytes]:
    sign = {"rank": 0, "size": 2, "pid": 1, "host": "here", "keeper": 1, "every": 1.0, "epochs": 3, "epoch": 1}
    sign |= {"step": 5, "steps": 10, "images": 16, "rate": 2.5, "still": 0.5, "trace": [1.5, 2.5], "traced": 4}
    return [json.dumps(sign).encode(), json.dumps(sign | {"ended": "stopped"}).encode(), *_rows()]


def _read_status(file: Path) -> None:
    """The same bytes as every file of a run."""
    blob = file.read_bytes()
    file.rename(file.with_name("config.json"))
    (file.parent / "pulse").mkdir()
    for name in ("metrics.jsonl", "log.txt", ".owner", ".claimed", "pulse/rank0.json", "pulse/rank1.json"):
        (file.parent / name).write_bytes(blob)
    run = watched(file.parent)
    run.look()
    run.frame(80, 40)


def _rows() -> list[bytes]:
    row = {"epoch": 1, "lr": 0.1, "train_loss": 1.5, "test_loss": 1.25, "top1": 55.5, "fps": 99.0, "seconds": 3.5}
    return [(json.dumps(row) + "\n" + json.dumps(row | {"epoch": 2}) + "\n").encode()]


def _read_rows(file: Path) -> None:
    file.rename(file.with_name("metrics.jsonl"))
    (file.parent / "result.json").write_bytes(_results()[0])
    Result.load(file.parent).frame()


def _records() -> list[bytes]:
    return [
        file.read_bytes() for file in sorted((ROOT / "data" / "results").glob("*.json")) if file.stat().st_size < 60_000
    ]


def _pictures() -> list[bytes]:
    colours = Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(20, 20, 3))
    kinds = {"PNG": "RGB", "JPEG": "RGB", "GIF": "P", "BMP": "RGB", "WEBP": "RGB", "TIFF": "F", "PPM": "L"}
    seeds = []
    for form, mode in kinds.items():
        buffer = io.BytesIO()
        (colours.convert("L").convert("F") if mode == "F" else colours.convert(mode)).save(buffer, form)
        seeds.append(buffer.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    about = {"exif": exif, "icc_profile": b"profile", "comment": b"whose?"}
    grey, deep = colours.convert("L"), Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20))
    more = [(colours, "JPEG", about), (colours.quantize(4), "PNG", {"transparency": b"\0", "exif": exif})]
    more += [
        (grey, "PNG", {"transparency": 3}),
        (deep, "TIFF", {"tiffinfo": {262: 0}}),
        (grey.convert("I"), "TIFF", {}),
    ]
    for image, form, options in more:
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        seeds.append(buffer.getvalue())
    return seeds


def _read_mask(file: Path) -> None:
    Image.new("RGB", (20, 20)).save(file.parent / "cat.bmp")
    read_pair(file.parent / "cat.bmp", file)


def _read_any_pickle(file: Path) -> None:
    read_pickle(file.read_bytes())


def _read_archive(file: Path) -> None:
    with contextlib.suppress(EOFError, tarfile.TarError, OSError, zlib.error):
        list(archive.members(file, {"f", "g"}.__contains__, 10_000))


def _read_parameters(file: Path) -> None:
    words = file.read_bytes().decode("utf-8", "replace").split("\n")
    TrainConfig.parse([word for word in words if word])


def _parameters() -> list[bytes]:
    given = {"lr": 0.1, "model": "attention92", "total_epochs": 3, "image_sizes": "16,32", "loss_scale": "dynamic"}
    return ["\n".join(word for name, value in given.items() for word in (f"--{name}", str(value))).encode()]


def _read_listed(file: Path) -> None:
    read_list(file, TrainConfig())


def _read_checkpoint(file: Path) -> None:
    file.rename(file.with_name("last.pt"))
    load_newest(file.parent)


READERS: dict[str, tuple[Callable[[], list[bytes]], Callable[[Path], object], str]] = {
    "pickle": (_pickles, _read_any_pickle, ".bin"),
    "archive": (_archives, _read_archive, ".tar.gz"),
    "weights": (_weights, _read_weights, ".pt"),
    "checkpoint": (_weights, _read_checkpoint, ".pt"),
    "safetensors": (_safetensors, _read_weights, ".safetensors"),
    "graph": (_graphs, _run_graph, ".onnx"),
    "configuration": (lambda: [json.dumps(TrainConfig().to_dict()).encode()], TrainConfig.load, ".json"),
    "result": (_results, _read_result, ".json"),
    "metrics": (_rows, _read_rows, ".jsonl"),
    "record": (_records, lambda file: read_records(file.parent), ".json"),
    "list": (
        lambda: [b'{"a": {"lr": 0.1}, "b": {"lr": 0.2, "modules": "1,1,1"}}'],
        lambda f: read_list(f, TrainConfig()),
        ".json",
    ),
    "status": (_signs, _read_status, ".json"),
    "picture": (_pictures, read_picture, ".png"),
    "mask": (_pictures, _read_mask, ".png"),
    "parameters": (_parameters, _read_parameters, ".txt"),
}

# ---- making inputs ----

_OPCODES = bytes(ord(opcode.code) for opcode in pickletools.opcodes)
_PIECES = [
    b"",
    b"\0",
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\x80" + bytes(7),
    b"NaN",
    b"1e999",
    b"-1",
    b"null",
    b"[" * 500,
]
_PIECES += [b"9" * 400, b"../", b"\n", b'"', b"\xed\xa0\x80", b"\xef\xbb\xbf", _OPCODES]


def mutated(seeds: list[bytes], chance: random.Random) -> bytes:
    """A seed with a few changes: bits, bytes, pieces lost, doubled, swapped in from another, cut short; or noise."""
    if chance.random() < 0.02:
        return chance.randbytes(chance.randrange(200))
    blob = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at, length = chance.randrange(len(blob) + 1), chance.choice((1, 1, 2, 4, 8, 64))
        kind = chance.randrange(7)
        if kind == 0 and blob:
            blob[at % len(blob)] ^= 1 << chance.randrange(8)
        elif kind == 1 and blob:
            blob[at % len(blob)] = chance.randrange(256)
        elif kind == 2:
            del blob[at : at + length]
        elif kind == 3:
            blob[at:at] = blob[at : at + length] * chance.choice((1, 2, 50))
        elif kind == 4:
            blob[at : at + length] = chance.choice(_PIECES)
        elif kind == 5:
            other = chance.choice(seeds)
            start = chance.randrange(len(other) + 1)
            blob[at : at + length] = other[start : start + length]
        elif chance.random() < 0.3:
            del blob[at:]
    return bytes(blob)


# ---- reading one ----


def outcome(place: Path, blob: bytes, reader: str) -> str:
    """Read one input in a folder of its own within `place`: "read", "refused", or what is wrong."""
    _, read, ending = READERS[reader]
    with tempfile.TemporaryDirectory(dir=place) as own:
        file = Path(own) / f"input{ending}"
        file.write_bytes(blob)
        try:
            read(file)
            how = "read"
        except AttnetError:
            how = "refused"
        except SystemExit as end:  # argparse: --help, or a word that is missing
            how = "refused" if end.code in (None, 0, 2) else f"SystemExit({end.code})"
        except BaseException as error:  # whatever it is, it is a fault
            how = f"{type(error).__name__}: {str(error)[:200]}"
    left = [path.name for path in place.iterdir()]
    return f"left {left[:3]} behind" if left else how
