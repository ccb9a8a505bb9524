"""What finds the objects of `shapes` without a network: every image control and a linear classifier, on record.

    git show ac61125:attnet/data/shapes.py > before.py    # the drawing of before
    python tests/harness_shapes.py --before before.py --output data/results/controls_shapes.json

Not collected by pytest. 1,000 test images; a minute or two.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from types import ModuleType

import torch
from torch.nn.functional import cross_entropy

from attnet.base.device import choose
from attnet.base.errors import in_sentences
from attnet.base.files.outputs import output_file, write_record
from attnet.base.host import environment
from attnet.data import shapes
from attnet.data.splits import Dataset, Split
from attnet.masks.controls import image_controls
from attnet.masks.localise import localise

TRAIN, TEST, LINEAR_TEST = 2000, 1000, 500
PENALTIES = (1e-3, 1e-2, 0.1, 1.0)
ITERATIONS = 60


def controls(split: Split) -> dict[str, dict[str, float]]:
    """Control -> mean AUROC, IoU and share of hits by pointing."""
    found = {}
    for name, maps in image_controls(split.images).items():
        scores = localise(maps, split.masks)
        found[name] = {what: getattr(scores, what).double().mean().item() for what in ("auroc", "iou", "pointing")}
    return found


def linear_top1(dataset: Dataset) -> dict[str, float]:
    """Top-1 (%) of logistic regression on the pixels by L2 penalty, its weights found by L-BFGS."""
    rows = [part.images.flatten(1).float() / 255 for part in (dataset.train, dataset.test)]
    mean, std = rows[0].mean(dim=0), rows[0].std(dim=0)
    train, test = ((part - mean) / std for part in rows)
    test, labels = test[:LINEAR_TEST], dataset.test.labels[:LINEAR_TEST]
    found = {}
    for penalty in PENALTIES:
        weight = torch.zeros(10, train.shape[1], requires_grad=True)
        optimiser = torch.optim.LBFGS([weight], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

        def loss(
            weight: torch.Tensor = weight, penalty: float = penalty, optimiser: torch.optim.Optimizer = optimiser
        ) -> torch.Tensor:
            optimiser.zero_grad()
            value = cross_entropy(train @ weight.T, dataset.train.labels) + penalty * weight.square().sum() / 2
            value.backward()
            return value

        optimiser.step(loss)
        found[f"{penalty:g}"] = 100 * ((test @ weight.T).argmax(dim=1) == labels).double().mean().item()
    return found


def measured(drawing: ModuleType) -> dict[str, object]:
    """Everything of one drawing."""
    dataset = drawing.make_shapes(TRAIN, TEST)
    by_control, linear = controls(dataset.test), linear_top1(dataset)
    strongest = {what: max(by_control.items(), key=lambda item: item[1][what]) for what in ("auroc", "iou", "pointing")}
    return {
        "controls": by_control,
        "strongest": {what: {"control": name, "value": scores[what]} for what, (name, scores) in strongest.items()},
        "linear_top1": max(linear.values()),
        "linear_by_penalty": linear,
        "object_share": dataset.test.masks.double().mean().item(),
    }


def drawing_of(path: Path) -> ModuleType:
    """The module in a file."""
    spec = importlib.util.spec_from_file_location("drawing_before", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a file with another drawing, to stand beside")
    parser.add_argument("--output", required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    output = output_file(options.output, (".json",))
    record = {
        "kind": "controls",
        "what": f"image controls on {TEST:,} test images of shapes; logistic regression on pixels, {TRAIN:,} to train",
        **({"before": measured(drawing_of(options.before))} if options.before else {}),
        "now": measured(shapes),
        "environment": environment(choose("CPU")),
        "date": date.today().isoformat(),
    }
    command = "python tests/harness_shapes.py --before before.py --output data/results/controls_shapes.json"
    write_record(output, record, command)
    for when in ("before", "now"):
        if when in record:
            print(when, {what: tuple(best.values()) for what, best in record[when]["strongest"].items()})
            print(when, f"linear {record[when]['linear_top1']:.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
