"""The paper's questions as studies: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017.

Size `full` trains the paper's CIFAR networks as its section 4.1 says: 160,000 steps of 64 images (205 epochs), SGD with
Nesterov momentum 0.9, rate 0.1, weight decay 1e-4, crops from 4 pixels of padding, mirroring. What differs: the rate
falls to a tenth after 30, 60 and 90 % of the epochs (the paper: 40 and 60 %), colours are standardised (the paper
subtracts the mean image), weights begin as PyTorch's layers do. Size `rehearsal` asks the same of `attention56_tiny`,
whose options give it the modules of the deeper ones, on some images of `shapes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from attnet.engine.parameters import TrainConfig
from attnet.model.variants import variants
from attnet.study.published import Published, published
from attnet.study.questions import Case, Study, pick

FULL = {"model": "attention56_cifar", "normalize": True, "total_epochs": 205, "train_batch_size": 64}
# Sized so that all of these studies together take minutes on two CPU cores, on images of which so much can be learned.
REHEARSAL = {
    **{"dataset": "shapes", "recipe": "fast94", "total_epochs": 4, "train_batch_size": 16},
    **{"train_images": 1000, "test_images": 300},
}
# Attention modules a stage: of m modules each, the trunk has 36 m + 20 layers (section 4.1). 452: also p, t and r.
MODULES = {56: 1, 92: 2, 128: 3, 164: 4, 236: 6, 452: 6}
NOISE = (0.1, 0.3, 0.5, 0.7)


def network(depth: int, size: str) -> dict[str, object]:
    """The parameters that give the network of that depth; none for 56, which is where every study begins."""
    if depth == 56:
        return {}
    modules = ",".join(3 * [str(MODULES[depth])])
    if size == "full":
        name = f"attention{depth}_cifar"
        return {"model": name} if name in variants() else {"model": "attention92_cifar", "modules": modules}
    return {"modules": modules} | ({"p": 2, "t": 4, "r": 3} if depth == 452 else {})


def figure(study: str, name: str, **changed: object) -> Published | None:
    """What the paper prints on a question for a network, with these options; None for nothing."""
    found = (row for row in published(study) if row.network == name and row.dataset != "cifar100")
    return next((row for row in found if changed.items() <= row.changed.items()), None)


def _residual(size: str) -> list[Case]:
    rows = []
    for depth in (56, 92, 128, 164) if size == "full" else (56, 92):
        suffix = "" if depth == 56 else f" {depth}"
        for combine in ("residual", "naive"):
            paper = figure("residual", f"Attention-{depth}", combine=combine)
            formula = "(1 + M)·T" if combine == "residual" else "M·T"
            against = "" if combine == "residual" else "residual" + suffix
            changes = {"combine": combine} | network(depth, size)
            rows.append(Case(combine + suffix, changes, against, f"{formula}, Attention-{depth}", published=paper))
    return rows


def _attention(size: str) -> list[Case]:
    whats = {
        "mixed": "a sigmoid",
        "channel": "normalised over the channels of each position",
        "spatial": "normalised over the positions of each channel, then a sigmoid",
        "none": "no masks: the trunk alone, a ResNet",
    }
    return [
        Case(
            kind,
            {"attention": kind},
            "" if kind == "mixed" else "mixed",
            what,
            published=figure("attention", "Attention-56", attention=kind),
        )
        for kind, what in whats.items()
    ]


def _sums(size: str) -> list[Case]:
    whats = {
        "reference": "the reference's: units, skip and coarse path, then the trunk",
        "paper": "the authors' networks': skip and coarse path",
    }
    return [
        Case(kind, {"sums": kind}, "" if kind == "reference" else "reference", what) for kind, what in whats.items()
    ]


def _choices(size: str) -> list[Case]:
    """The rows of three studies that differ from the default network in one choice, held against it."""
    others = [row for rows in (_residual(size)[1:2], _attention(size)[1:], _sums(size)[1:]) for row in rows]
    named = {"paper": "paper sums", "none": "no masks"}
    changed = [dataclasses.replace(row, name=named.get(row.name, row.name), against="default") for row in others]
    return [Case("default", {}, what="mixed masks, (1 + M)·T, the reference's sums"), *changed]


def _depth(size: str) -> list[Case]:
    rows = []
    for depth in (56, 92, 236, 452):
        name = f"Attention-{depth}"
        paper = figure("depth", name) or figure("residual", name, combine="residual")
        against, what = "" if depth == 56 else "56", f"{MODULES[depth]} modules a stage"
        row = Case(str(depth), network(depth, size), against, what, published=paper, line="Attention", x=depth)
        rows.append(row)
    return rows


def _noise(size: str) -> list[Case]:
    rows = []
    for share in NOISE:
        per_cent = round(100 * share)
        trunk = f"trunk {per_cent}"
        for name, against, what, options, other in (
            (trunk, "", "trunk alone, a ResNet", {"attention": "none"}, "ResNet-164"),
            (f"attention {per_cent}", trunk, "with masks", {"attention": "mixed"}, "Attention-92"),
        ):
            paper = figure("noise", other, label_noise=share)
            changes = options | {"label_noise": share}
            rows.append(Case(name, changes, against, what, published=paper, line=what, x=per_cent))
    return rows


def _unit(size: str) -> list[Case]:
    names = {"preact": "Attention-56", "resnext": "AttentionNeXt-56", "inception": "AttentionInception-56"}
    whats = {"preact": "pre-activation bottlenecks", "resnext": "ResNeXt units", "inception": "Inception units"}
    return [
        Case(kind, {"unit": kind}, "" if kind == "preact" else "preact", whats[kind], published=figure("unit", name))
        for kind, name in names.items()
    ]


def _picked(make: Callable[[str], list[Case]]) -> Callable[[TrainConfig, str, Sequence[str]], list[Case]]:
    return lambda base, size, only: pick(make(size), only)


def _presets(**other: dict[str, object]) -> dict[str, dict[str, object]]:
    return {"rehearsal": REHEARSAL | other.get("rehearsal", {}), "full": FULL | other.get("full", {})}


PAPER = (
    Study(
        "residual",
        "Is it better to add the masked trunk to the trunk, (1 + M)·T, than to take M·T alone?",
        "In the paper naive attention loses 0.4 points at 56 layers and 2.9 at 164: mask after mask below 1 shrinks "
        "what passes; residual attention gains from every module.",
        _picked(_residual),
        _presets(),
        seeds=(0, 1),
    ),
    Study(
        "attention",
        "Should a mask be free in space and channel, or normalised along one of them?",
        "In the paper the free mask wins by 0.7 and 0.8 points. The row without masks, which the paper lacks, says "
        "what all of them bring.",
        _picked(_attention),
        _presets(),
        seeds=(0,),
    ),
    Study(
        "sums",
        "Does it matter what a mask branch adds up on its way?",
        "Every port asks which sums are meant: the reference's code has more of them than the authors' prototxt. No "
        "weights differ. Nobody has published a comparison.",
        _picked(_sums),
        _presets(),
        seeds=(0,),
    ),
    Study(
        "choices",
        "Which of the paper's choices about masks can be told apart?",
        "Every row differs from the default network in one choice. An interval that holds 0 is no answer yet.",
        _picked(_choices),
        _presets(),
        seeds=(0,),
        on_given=True,
    ),
    Study(
        "depth",
        "Do more attention modules help?",
        "In the paper Top-1 rises with every step to 452 layers. A deeper network takes longer to learn as much, so a "
        "short training favours the shallow one.",
        _picked(_depth),
        _presets(rehearsal={"train_images": 160, "test_images": 200, "total_epochs": 2}),
        seeds=(0,),
        axis="trunk depth (layers)",
    ),
    Study(
        "noise",
        "Do masks protect the trunk from wrong labels?",
        "In the paper the network with masks stays ahead at every noise level, by 0.8 points at 10 % and 1.5 at 70 %, "
        "of a ResNet that is deeper; here it meets its own trunk. Whoever learned the wrong labels by heart says them "
        "of the training images.",
        _picked(_noise),
        _presets(full={"model": "attention92_cifar"}),
        seeds=(0,),
        axis="wrong training labels (%)",
    ),
    Study(
        "unit",
        "Does it work with other units than pre-activation bottlenecks?",
        "In the paper, on ImageNet, ResNeXt units gain 0.6 points and Inception units 1.4 at the same number of "
        "parameters.",
        _picked(_unit),
        _presets(),
        seeds=(0,),
    ),
)
