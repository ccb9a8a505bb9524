"""How long the explorer takes to answer a move: `python tests/harness_explorer.py > data/results/explorer_moves.json`.

Every move that needs the kernel is made many times on `attention92`, the largest 32-pixel network of the reference;
what is timed is from the message of the browser to the answer, all modules with all their channels. Another module,
channel, strength, point and most reductions need no kernel. The browser adds the transfer of so many bytes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time

import attnet
from attnet.base.device import choose
from attnet.base.host import environment
from attnet.masks.replace import INTERVENTIONS
from attnet.model.pretrained import Pretrained
from attnet.plots.viewer.explorer import Explorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="attention92")
    parser.add_argument("--rounds", type=int, default=20)
    words = parser.parse_args()
    network = Pretrained(attnet.build_model(words.model).eval(), tuple(f"class {k}" for k in range(10)), words.model)
    begun = time.perf_counter()
    explorer = Explorer(network, attnet.load_dataset(None, "shapes"))
    opened, size = time.perf_counter() - begun, len(explorer.numbers)
    modules = [module["name"] for module in explorer.film["modules"]]
    moves = {
        "image": lambda i: {"image": {"set": "test", "n": 100 + i}},
        "part": lambda i: {"part": ("trunk", "masked", "mask")[i % 3]},
        "replaced mask": lambda i: {"replaced": INTERVENTIONS[i % len(INTERVENTIONS)], "module": modules[-1]},
        "replaced masks": lambda i: {"replaced": INTERVENTIONS[i % len(INTERVENTIONS)], "everywhere": True},
        "main component": lambda i: {"reduction": "pca", "image": {"set": "test", "n": 200 + i}},
        "Grad-CAM": lambda i: {"part": "Grad-CAM", "module": modules[i % len(modules)]},
    }
    report = {}
    for name, change in moves.items():
        walls, processors = [], []
        explorer.move(**explorer.film["start"])
        for i in range(words.rounds + 1):
            explorer.states[0].looker(0).passes.clear()  # the worst case: nothing is remembered
            begun, used = time.perf_counter(), time.process_time()
            explorer.move(**change(i))
            walls.append(1000 * (time.perf_counter() - begun))
            processors.append(1000 * (time.process_time() - used))
        del walls[0], processors[0]
        report[name] = {
            "median_ms": round(statistics.median(walls), 1),
            "p95_ms": round(sorted(walls)[int(0.95 * len(walls))], 1),
            "processor_median_ms": round(statistics.median(processors), 1),
        }
    record = {
        "kind": "explorer",
        "what": "milliseconds from a move in the explorer to its answer, nothing remembered",
        "command": f"python tests/harness_explorer.py --model {words.model} --rounds {words.rounds}",
        "date": datetime.date.today().isoformat(),
        "model": words.model,
        "opened_seconds": round(opened, 2),
        "bytes": size,
        "moves": report,
        "environment": environment(choose("CPU")),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
