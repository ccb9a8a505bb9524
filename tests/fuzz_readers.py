"""Every reader of files, some honest inputs of each, and how inputs are spoiled."""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import gzip
import io
import json
import pickle
import pickletools
import random
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from made import make_result
from PIL import Image

from attnet.base.errors import AttnetError
from attnet.data import archive
from attnet.data.objects import read_pair
from attnet.data.pickles import read_pickle
from attnet.data.pictures import read_picture
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan
from attnet.engine.result import Result
from attnet.engine.run_folder import checkpoint
from attnet.engine.status.watched import watched
from attnet.engine.training import Training
from attnet.model.weights.graphs import OnnxNetwork
from attnet.model.weights.loading import load_weights
from attnet.model.weights.opened import Weights
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


class _Small(torch.nn.Module):
    """A network of few bytes, so that a change is seldom one of a number alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.BatchNorm2d(2))
        self.fc = torch.nn.Linear(2, 3)


def _weights() -> list[bytes]:
    torch.manual_seed(0)
    small = _Small().state_dict()
    record = {"config": {"model": "attention56_tiny", "p": 1}, "classes": ["a", "b"], "top1": 50.0, "epoch": 3}
    lightning = {"state_dict": {f"model.{name}": value for name, value in small.items()}, "best": np.float64(93.2)}
    lightning["hyper_parameters"] = argparse.Namespace(lr=0.1, sizes=collections.defaultdict(list, {"a": [1]}))
    averaged = {"model": small, "model_ema": {f"module.{name}": value for name, value in small.items()}}
    theirs = {"generator": small, "discriminator": {"deep": small}, "optimizer": {"state": {0: torch.ones(2)}}}
    seeds = []
    for content in (small, {"model": small, **record}, lightning, averaged, theirs):
        for new in (True, False):
            buffer = io.BytesIO()
            torch.save(content, buffer, _use_new_zipfile_serialization=new)
            seeds.append(buffer.getvalue())
    return seeds


@functools.cache
def _training() -> Training:
    few = {"train_images": 32, "test_images": 10, "train_batch_size": 16, "total_epochs": 3, "progress": "none"}
    network = {"model": "attention56_tiny", "ema": 0.9, "amp": "O0", "device_type": "CPU"}
    return Training(make_plan(TrainConfig(dataset="shapes", mode="rehearsal", **few, **network)))


def _checkpoints() -> list[bytes]:
    """last.pt and step.pt of a run."""
    training, seeds = _training(), []
    training.train_step.train()
    for micro_batches in training.train_batches.epoch(0):
        training.advance(micro_batches)
        buffer = io.BytesIO()
        torch.save(training.state(), buffer)
        seeds.append(buffer.getvalue())
    return seeds


def _safetensors() -> list[bytes]:
    from safetensors.torch import save

    tensors = _Small().state_dict()
    record = {"config": json.dumps({"model": "attention56_tiny"}), "classes": '["a"]', "top1": "5.5"}
    return [save(tensors), save(tensors, record)]


def _read_weights(file: Path) -> None:
    opened = Weights.open(file)
    opened.model, opened.outputs  # noqa: B018 (properties that look into it)
    load_weights(_Small(), opened)


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
    import onnx

    network = OnnxNetwork(file)
    size = onnx.load(file).graph.input[0].type.tensor_type.shape.dim[2].dim_value
    if size <= 64:
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
    state, _ = checkpoint(file.parent, 1)
    if state is not None:
        _training().load_state(state)


READERS: dict[str, tuple[Callable[[], list[bytes]], Callable[[Path], object], str]] = {
    "pickle": (_pickles, _read_any_pickle, ".bin"),
    "archive": (_archives, _read_archive, ".tar.gz"),
    "weights": (_weights, _read_weights, ".pt"),
    "checkpoint": (_checkpoints, _read_checkpoint, ".pt"),
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
    """A seed with a few changes, as it lies there or in what it wraps; or noise."""
    if chance.random() < 0.02:
        return chance.randbytes(chance.randrange(200))
    blob = chance.choice(seeds)
    if chance.random() < 0.6:
        for at, sign, inside in _INSIDE:
            if blob.startswith(sign, at):
                return inside(blob, lambda part: _spoiled(part, seeds, chance), chance)
    return _spoiled(blob, seeds, chance)


def _spoiled(content: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    """Bits, bytes, pieces lost, doubled, swapped in from another, cut short."""
    blob = bytearray(content)
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


# Checksums and lengths around a part keep most changes from being read at all, so they are made to fit again.


def _in_zip(blob: bytes, spoil: Callable[[bytes], bytes], chance: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = [name for name in members if name.endswith("data.pkl")]
    chosen = chance.choice(pickled if pickled and chance.random() < 0.8 else list(members))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, spoil(content) if name == chosen else content)
    return buffer.getvalue()


def _in_gzip(blob: bytes, spoil: Callable[[bytes], bytes], chance: random.Random) -> bytes:
    return gzip.compress(spoil(gzip.decompress(blob)), 1)


def _in_png(blob: bytes, spoil: Callable[[bytes], bytes], chance: random.Random) -> bytes:
    chunks, at = [], 8
    while at < len(blob):
        length = int.from_bytes(blob[at : at + 4])
        chunks.append((blob[at + 4 : at + 8], blob[at + 8 : at + 8 + length]))
        at += 12 + length
    chosen = chance.randrange(len(chunks))
    parts = [blob[:8]]
    for number, (name, content) in enumerate(chunks):
        if number == chosen:
            is_pixels = name == b"IDAT" and chance.random() < 0.7
            content = zlib.compress(spoil(zlib.decompress(content)), 1) if is_pixels else spoil(content)
        parts += [len(content).to_bytes(4), name, content, zlib.crc32(name + content).to_bytes(4)]
    return b"".join(parts)


def _in_safetensors(blob: bytes, spoil: Callable[[bytes], bytes], chance: random.Random) -> bytes:
    length = int.from_bytes(blob[:8], "little")
    header, numbers = blob[8 : 8 + length], blob[8 + length :]
    at = chance.randrange(length)
    piece = header[at : at + 1]  # letters and digits alone, so that it stays JSON most of the time
    if piece.isdigit() or (piece.isalpha() and chance.random() < 0.5):
        header = header[:at] + chance.choice([b"0", b"9", b"99999999", b"-1", b"1e3"]) + header[at + 1 :]
    else:
        header = spoil(header)
    return len(header).to_bytes(8, "little") + header + numbers


# Where the sign is, the sign, and what goes inside.
_INSIDE = [(0, b"PK", _in_zip), (0, b"\x1f\x8b", _in_gzip), (0, b"\x89PNG", _in_png), (8, b"{", _in_safetensors)]


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
