"""Does an edge filter, without any network, find the objects of `shapes`?

python tests/harness_edges.py --output data/results/edges_shapes.json
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

import torch
import torch.nn.functional as F
from torch import Tensor

import attnet
from attnet.base.device import choose
from attnet.base.files import output_file, write_record
from attnet.base.host import environment
from attnet.masks.localise import localise

SOBEL = torch.tensor([[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]])


def edges(images: Tensor, window: int = 5) -> Tensor:
    """The magnitude of Sobel's gradients, summed over colours, then the mean of a window: uint8 [N, 3, H, W] to
    float32 [N, H, W]."""
    filters = torch.stack([SOBEL, SOBEL.T])[:, None].repeat(3, 1, 1, 1)
    gradients = F.conv2d(F.pad(images.float() / 255, (1, 1, 1, 1), mode="replicate"), filters, groups=3)
    magnitude = gradients.square().sum(dim=1, keepdim=True).sqrt()
    return F.avg_pool2d(magnitude, window, stride=1, padding=window // 2, count_include_pad=False)[:, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True, help="the JSON file to write")
    file = output_file(parser.parse_args().output, (".json",))
    split = attnet.load_dataset(None, "shapes").test
    found = localise(edges(split.images), split.masks)
    content = {
        "kind": "controls",
        "what": "an edge filter without any network (Sobel, then a 5x5 mean) as a finder of the objects of shapes",
        "images": len(split),
        "scores": {name: asdict(interval) for name, interval in found.summary().items()},
        "environment": environment(choose("CPU")),
    }
    write_record(file, content, f"python tests/harness_edges.py --output {sys.argv[-1]}")
    print(content["scores"])


if __name__ == "__main__":
    main()
