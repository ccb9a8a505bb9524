"""Feed damaged, odd and random files to every reader: `python tests/harness_fuzz.py --minutes 30 --output FILE.json`.

Whatever a file holds, a reader gives a value or an error of ours that names what is wrong. Anything else is a fault:
another exception, a crash of the process, SECONDS without an answer, a file outside the folder that it may write to.
Each reader works in a process of its own, whose memory is bounded.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from fuzz_readers import READERS, mutated, outcome

from attnet.base.files.outputs import output_file, write_record

SECONDS = 20
MEMORY = 2 << 30  # bytes of address space above what the process has when it is ready
BATCH = 200  # inputs between two reports


# ---- one reader in its process ----


def _work(name: str, seed: int, channel: Connection) -> None:
    """Read inputs until told to stop; before each of them say which, after BATCH of them how it went."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    seeds, chance = READERS[name][0](), random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for blob in seeds:  # honest ones first: what they need is known then
            outcome(Path(place), blob, name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        limit = _address_space() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        while True:
            done = {"inputs": 0, "refused": 0, "faults": []}
            for _ in range(BATCH):
                blob = mutated(seeds, chance)
                channel.send(blob)
                how = outcome(Path(place), blob, name)
                done["inputs"] += 1
                done["refused"] += how == "refused"
                if how not in ("read", "refused"):
                    done["faults"].append((how, blob))
            done["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
            channel.send(done)


def _address_space() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize"))


def _start(name: str, seed: int) -> tuple[multiprocessing.Process, Connection]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(name, seed, there), daemon=True)
    process.start()
    there.close()
    return process, here


def fuzz(name: str, seconds: float, seed: int, kept: Path | None = None) -> dict[str, object]:
    """Feed one reader for so long, and BATCH inputs at least; a process that dies or hangs is a fault, and another one
    goes on."""
    found = {"reader": name, "inputs": 0, "refused": 0, "crashes": 0, "hangs": 0, "memory": 0, "faults": {}}

    def fault(what: str, blob: bytes) -> None:
        key = what if len(found["faults"]) < 20 else "more"
        found["faults"][key] = found["faults"].get(key, 0) + 1
        if kept is not None and found["faults"][key] == 1:
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"{name}-{len(found['faults'])}.bin").write_bytes(blob)

    until, (process, channel), last = float("inf"), _start(name, seed), b""
    started, message = False, None
    try:
        while time.monotonic() < until or not found["inputs"]:
            try:
                if not channel.poll(SECONDS if started else 120):
                    found["hangs"] += 1
                    fault(f"nothing for {SECONDS} s", last)
                    raise EOFError
                message = channel.recv()
            except EOFError:
                process.kill()
                process.join()
                if process.exitcode != -9 or message is None:
                    found["crashes"] += 1
                    fault(f"the process ended with {process.exitcode}", last)
                seed += 1_000_003
                process, channel = _start(name, seed)
                started = False
                continue
            if not started:  # to begin takes seconds, which are not the reader's
                started, until = True, min(until, time.monotonic() + seconds)
            if isinstance(message, bytes):
                last = message
                continue
            found["inputs"] += message["inputs"]
            found["refused"] += message["refused"]
            found["memory"] = max(found["memory"], message["memory"])
            for what, blob in message["faults"]:
                fault(what, blob)
    finally:
        process.kill()
        process.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="in all, shared among the readers (default 1)")
    parser.add_argument("--only", default="", help=f"some readers, with commas between: {', '.join(READERS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="", help="record to write, FILE.json")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(READERS)
    kept = Path(tempfile.gettempdir()) / "attnet-fuzz"
    rows = []
    for name in names:
        row = fuzz(name, 60 * options.minutes / len(names), options.seed, kept)
        rows.append(row)
        counts = (
            f"{row['inputs']:8,} inputs, {row['refused']:8,} refused, {row['crashes']} crashes, {row['hangs']} hangs"
        )
        faults = row["faults"] or "none"
        print(f"{name:14} {counts}, {row['memory'] / 2**20:6,.0f} MiB, faults: {faults}", flush=True)
    total, wrong = sum(row["inputs"] for row in rows), any(row["faults"] for row in rows)
    print(f"{total:,} inputs in all" + (f"; one of each fault is in {kept}" if wrong else ""))
    if options.output:
        what = "damaged, odd and random files fed to every reader; anything but a value or an error of ours is a fault"
        only = f" --only {options.only}" if options.only else ""
        command = f"python tests/harness_fuzz.py --minutes {options.minutes:g} --seed {options.seed}{only}"
        content = {"kind": "fuzz", "what": what, "inputs": total, "rows": rows}
        write_record(output_file(options.output, (".json",)), content, command)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
