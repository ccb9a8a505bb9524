"""How long the explorer takes to answer a move: `python tests/harness_explorer.py > data/results/explorer_moves.json`.

Every control is moved many times on `attention92`, the largest 32-pixel network of the reference; what is timed is
from the changed value to the finished picture in the kernel. The browser adds the transfer of some 50 kB.
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
from attnet.plots.explorer import Explorer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="attention92")
    parser.add_argument("--rounds", type=int, default=10)
    words = parser.parse_args()
    network = Pretrained(attnet.build_model(words.model).eval(), tuple(f"class {k}" for k in range(10)), words.model)
    explorer = Explorer(network, attnet.load_dataset(None, "shapes"))
    modules = list(explorer.modules)
    moves = {
        "number": lambda i: 100 + i,
        "module": lambda i: modules[(i + 1) % len(modules)],
        "part": lambda i: ("trunk", "masked", "mask")[i % 3],
        "reduction": lambda i: ("max", "l2", "pca", "channel")[i % 4],
        "channel": lambda i: i + 1,
        "strength": lambda i: 10 * (i % 10),
        "intervention": lambda i: INTERVENTIONS[i % len(INTERVENTIONS)],
        "everywhere": lambda i: i % 2 == 0,
    }
    report = {}
    for name, value in moves.items():
        seconds = []
        for i in range(words.rounds + 1):
            explorer.looker.passes.clear()  # the worst case: nothing is remembered
            begun = time.perf_counter()
            getattr(explorer, name).value = value(i)
            seconds.append(time.perf_counter() - begun)
        del seconds[0]
        report[name] = {"median_ms": 1000 * statistics.median(seconds), "slowest_ms": 1000 * max(seconds)}
    record = {
        "kind": "explorer",
        "what": "milliseconds from a move of a control of the explorer to its picture, nothing remembered",
        "command": f"python tests/harness_explorer.py --model {words.model} --rounds {words.rounds}",
        "date": datetime.date.today().isoformat(),
        "model": words.model,
        "moves": {name: {key: round(ms, 1) for key, ms in times.items()} for name, times in report.items()},
        "environment": environment(choose("CPU")),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
