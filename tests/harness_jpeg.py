"""What a lossy JPEG pass over the images costs, on record: the trained network on images that went through another one.

    python tests/harness_jpeg.py --data_path data/cifar-10-batches-py --folder runs/jpeg --output data/results/jpeg.json

Not collected by pytest; it takes half an hour or more on two old CPU cores, and goes on where it was stopped. Training
and test images are compressed once more, as the first time (quality 75, colours at half resolution), but in blocks that
begin elsewhere: on the same grid a second pass finds nothing to take away, which is the control. The network that was
trained on the images as they are is tested on these, and trained on with either, alike.
"""

import argparse
import io
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import attnet
from attnet.base.errors import in_sentences
from attnet.base.files.outputs import output_file, write_record
from attnet.base.files.paths import resolve_path
from attnet.base.host import environment
from attnet.base.intervals import confidence_interval
from attnet.base.progress import tracked
from attnet.base.words import listed_seeds
from attnet.data.splits import Dataset, Split
from attnet.engine.evaluation import evaluate_weights
from attnet.study.needed import BUDGET
from attnet.study.questions import difference
from attnet.study.sweeps.sweep import Sweep

WEIGHTS = "attention56_cifar"
AS_THEY_ARE = "as they are"


@dataclass(frozen=True)
class Pass:
    """A JPEG pass of `quality`, in blocks that begin `shift` pixels left of and above the image."""

    quality: int
    shift: int
    what: str


PASSES = {
    "same grid": Pass(75, 0, "compressed again in the same blocks: the control"),
    "other grid": Pass(75, 4, "compressed again in blocks that begin 4 pixels outside"),
    "quality 50": Pass(50, 4, "the same at quality 50"),
}
TRAINED = ("other grid",)


def compressed(images: Tensor, how: Pass) -> Tensor:
    """uint8 [N, 3, H, W] after the pass; what lies outside an image is its nearest pixel."""
    edges = ((how.shift, 0), (how.shift, 0), (0, 0))
    found = []
    for image in tracked(images.permute(0, 2, 3, 1).numpy(), len(images), "images compressed"):
        file = io.BytesIO()
        Image.fromarray(np.pad(image, edges, mode="edge")).save(file, "JPEG", quality=how.quality, subsampling="4:2:0")
        found.append(np.asarray(Image.open(file))[how.shift :, how.shift :])
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def write(folder: Path, dataset: Dataset, how: Pass) -> Path:
    """The data set after the pass, as CIFAR-10 lies on disk; what is there already stays."""
    if (folder / "batches.meta").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str, split: Split, rows: slice) -> None:
        content = {"data": split.images[rows].flatten(1).numpy(), "labels": split.labels[rows].tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))

    train, test = (Split(compressed(part.images, how), part.labels) for part in (dataset.train, dataset.test))
    for number in range(5):
        save(f"data_batch_{number + 1}", train, slice(10_000 * number, 10_000 * (number + 1)))
    save("test_batch", test, slice(None))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(dataset.classes)}, protocol=2))
    return folder


def right(path: Path) -> Tensor:
    """100.0 for each test image that the weights are right about, else 0.0."""
    plan = attnet.make_plan(
        attnet.TrainConfig(is_train=False, pretrained=WEIGHTS, test_flip=False, data_path=str(path))
    )
    found = evaluate_weights(plan)
    return 100 * (found.predictions == found.labels).double()


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Compress, test, train, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", required=True, help="CIFAR-10")
    parser.add_argument("--folder", required=True, help="where the compressed images and the runs lie")
    parser.add_argument("--output", required=True, help="JSON file to write")
    parser.add_argument("--train_images", type=int, default=8000, help="of them are trained on, once")
    parser.add_argument("--test_images", type=int, default=5000, help="of them are tested on, after that")
    parser.add_argument("--seeds", default="0,1,2", help="of the trainings")
    options = parser.parse_args(arguments)
    output = output_file(options.output, (".json",))
    folder, original = resolve_path(options.folder), resolve_path(options.data_path)
    dataset = attnet.load_dataset(original, "cifar10")
    paths = {AS_THEY_ARE: original} | {name: write(folder / name, dataset, how) for name, how in PASSES.items()}

    tested, untouched = {}, right(original)
    for name, how in PASSES.items():
        after, before = attnet.load_dataset(paths[name], "cifar10").test.images, dataset.test.images
        changed = (after.int() - before.int()).abs().double().mean().item()
        found = right(paths[name])
        tested[name] = {"what": how.what, "levels_changed": changed, "top1": found.mean().item()}
        tested[name]["difference"] = asdict(confidence_interval(found - untouched))

    base = attnet.TrainConfig(
        **BUDGET | {"warmup_epochs": 0.2},
        pretrained=WEIGHTS, total_epochs=1, train_batch_size=64, test_flip=False, checkpoint_seconds=60,
        train_images=options.train_images, test_images=options.test_images,
    )  # fmt: skip
    arms = {name: base.replace(data_path=str(paths[name])) for name in (AS_THEY_ARE, *TRAINED)}
    seeds = listed_seeds(options.seeds)
    rows = Sweep(arms, seeds, folder / "runs").run()
    top1 = {row["name"]: dict(zip(seeds, row["top1"], strict=True)) for row in rows}
    content = {
        "kind": "jpeg",
        "what": "Top-1 (%) on test images after another JPEG pass: of the shipped weights as they are (paired by "
        "image), and after training on with images of the same kind (paired by seed)",
        "weights": WEIGHTS,
        "untouched": {"top1": untouched.mean().item(), "images": len(untouched)},
        "tested": tested,
        "training": {name: value for name, value in base.given().items() if name != "checkpoint_seconds"},
        "trained": [{name: value for name, value in row.items() if name not in ("changed", "result")} for row in rows],
        "differences": {name: difference(top1[name], top1[AS_THEY_ARE]) for name in TRAINED},
        "environment": environment(attnet.make_plan(base.replace(is_train=False, data_path=str(original))).device),
    }
    flags = f"--train_images {options.train_images} --test_images {options.test_images} --seeds {options.seeds}"
    command = (
        f"python tests/harness_jpeg.py --data_path DATA --folder runs/jpeg {flags} --output data/results/jpeg.json"
    )
    write_record(output, content, command)
    for name, gap in content["differences"].items():
        print(f"{name}: {gap['mean']:+.2f} points ({gap['low']:+.2f} to {gap['high']:+.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
