"""What others have published: each figure with its source, to stand beside ours, never instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_DOCUMENT = "the document (3d_attention_net for PyTorch, table 2)"
_REFERENCE = "ResidualAttentionNetwork-pytorch by tengshaofeng, README"
_GLUON = "ResidualAttentionNetwork by PistonY (Gluon), README"
_MXNET = "ResidualAttentionNetwork-Gluon by haoxintong (MXNet), Readme"
_PAPER = "Wang et al., CVPR 2017"


@dataclass(frozen=True)
class Published:
    """One figure of one source; None, or empty, where the source says nothing.

    `network` is named as the source does, `model` is the row of `attnet.variants()` that it is here ("" for another
    network), `changed` the options for study, label noise or recipe in which it differs from that. `top1` is in per
    cent (the paper prints the error, 100 less this), `fps` in images/s of all cards, `batch_size` a card. `study` is
    the paper's question that the figure answers: residual, attention, depth, noise or unit.
    """

    source: str
    network: str
    model: str
    dataset: str = "cifar10"
    top1: float | None = None
    fps: float | None = None
    epochs: int | None = None
    amp: str = ""
    device: str = ""
    batch_size: int | None = None
    changed: Mapping[str, object] = field(default_factory=dict)
    study: str = ""


def _document(top1: float | None, fps: int, epochs: int, device: str, batch_size: int) -> Published:
    return Published(_DOCUMENT, "attention92", "attention92", "cifar10", top1, fps, epochs, "O2", device, batch_size)


DOCUMENT = (
    _document(None, 1432, 1, "npu_1p", 512),
    _document(85.48, 9587, 300, "npu_8p", 512),
    _document(None, 1396, 1, "gpu_1p", 512),
    _document(85.37, 8342, 300, "gpu_8p", 512),
    _document(94.13, 723, 300, "npu_8p", 32),
    _document(94.32, 2461, 300, "gpu_8p", 32),
)


def _port(source: str, network: str, model: str, top1: float, **figures: object) -> Published:
    return Published(source, network, model, top1=top1, **{"device": "gpu_1p", **figures})


_TRICKS = {"recipe": "mixup, warm-up, cosine, cutout, no bias decay"}
# Epochs and batches that a README does not give are its training script's. What bears the paper's names is mostly twice
# as wide as the paper's CIFAR networks: the reference's attention92 with other modules a stage.
PORTS = (
    _port(_REFERENCE, "Attention-92", "attention92", 95.4, epochs=300, batch_size=64),
    _port(_REFERENCE, "Attention-92", "attention92", 96.65, epochs=320, changed={"recipe": "mixup"}, batch_size=64),
    _port(_REFERENCE, "Attention-92, simpler attention", "", 96.84, changed={"recipe": "mixup"}),
    _port(_GLUON, "Attention-92", "attention92", 97.14, batch_size=256, changed=_TRICKS),
    _port(_GLUON, "Attention-452, twice as wide", "", 97.57, changed=_TRICKS),
    _port(
        *(_MXNET, "Attention-56, twice as wide", "", 96.50),
        **{"epochs": 200, "device": "gpu_8p", "batch_size": 128, "changed": {"recipe": "lr 1.6, warm-up 10, mixup 1"}},
    ),
    _port(
        *(_MXNET, "Attention-56, twice as wide", "", 95.66),
        **{"epochs": 200, "device": "gpu_8p", "batch_size": 128, "changed": {"recipe": "lr 2.0, warm-up 5"}},
    ),
)


def _paper(
    table: int, study: str, network: str, model: str, error: float, dataset: str = "cifar10", **changed: object
) -> Published:
    return Published(
        f"{_PAPER}, table {table}", network, model, dataset, round(100 - error, 2), changed=changed, study=study
    )


def _attention_types() -> list[Published]:
    errors = {"mixed": 5.52, "channel": 6.24, "spatial": 6.33}
    return [
        _paper(1, "attention", "Attention-56", "attention56_cifar", error, attention=kind)
        for kind, error in errors.items()
    ]


def _residual_and_naive() -> list[Published]:
    errors = {"residual": (5.52, 4.99, 4.44, 4.31), "naive": (5.89, 5.35, 5.57, 7.18)}
    own = {56: {}, 92: {}, 128: {"modules": "3,3,3"}, 164: {"modules": "4,4,4"}}
    names = {56: "attention56_cifar", 92: "attention92_cifar", 128: "attention92_cifar", 164: "attention92_cifar"}
    return [
        _paper(3, "residual", f"Attention-{depth}", names[depth], error, combine=combine, **own[depth])
        for combine, row in errors.items()
        for depth, error in zip(own, row, strict=True)
    ]


def _noisy_labels() -> list[Published]:
    errors = {"ResNet-164": (5.93, 6.61, 8.35, 17.21), "Attention-92": (5.15, 5.79, 7.27, 15.75)}
    model = {"ResNet-164": "", "Attention-92": "attention92_cifar"}
    return [
        _paper(5, "noise", network, model[network], error, label_noise=noise)
        for network, row in errors.items()
        for noise, error in zip((0.1, 0.3, 0.5, 0.7), row, strict=True)
    ]


def _depths() -> list[Published]:
    errors = {92: (4.99, 21.71), 236: (4.14, 21.16), 452: (3.90, 20.45)}
    rows = [("ResNet-164", "", 5.46, 24.33), ("ResNet-1001", "", 4.64, 22.71)]
    rows += [(f"Attention-{depth}", f"attention{depth}_cifar", *pair) for depth, pair in errors.items()]
    return [
        _paper(6, "depth", network, model, error, dataset)
        for network, model, *pair in rows
        for dataset, error in zip(("cifar10", "cifar100"), pair, strict=True)
    ]


def _units() -> list[Published]:
    """One crop of the ImageNet validation images; all three have 31.9 M parameters by the paper."""
    rows = (
        ("Attention-56", 21.76, {}),
        ("AttentionNeXt-56", 21.2, {"unit": "resnext"}),
        ("AttentionInception-56", 20.36, {"unit": "inception"}),
    )
    return [_paper(7, "unit", network, "attention56_224", error, "imagenet", **own) for network, error, own in rows]


PAPER = (*_attention_types(), *_residual_and_naive(), *_noisy_labels(), *_depths(), *_units())


def published(study: str) -> list[Published]:
    """The paper's figures on one question: residual, attention, depth, noise or unit."""
    return [row for row in PAPER if row.study == study]
