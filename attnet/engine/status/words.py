"""A run's state in characters: a frame of lines for a terminal, one line for a log, a table of several runs."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from attnet.base.files.paths import relative_to_root
from attnet.base.words import NONE, duration, printable
from attnet.engine.status.facts import STATES, Status

MARKS, PLAIN = " ▁▂▃▄▅▆▇█", "  ..::||#"  # from nothing to a whole cell; the second where a terminal has no blocks
TALL = 4  # lines of a curve
RANKS, LOG = 16, 6  # lines of ranks and of the log, at most


def frame(status: Status, width: int = 80, height: int = 40, marks: str = MARKS) -> list[str]:
    """The whole of it: what runs, how far, its curves, its ranks, its last checkpoint, the log's end; no line is longer
    than `width`, and the log gives way where `height` is short."""
    lines = [title(status), state(status), pace(status), _bar(status, width, marks)]
    lines += textwrap.wrap(status.why, width, max_lines=3, placeholder=" …")
    lines += ["", *_curves(status, width, marks)]
    silent = [rank for rank in status.ranks if rank.state != "training"]
    if len(status.ranks) > 1:
        lines.append(f"ranks: {len(status.ranks) - len(silent)} of {len(status.ranks)} train")
        shown = sorted([*silent, *(rank for rank in status.ranks if rank not in silent)][:RANKS], key=lambda r: r.rank)
        lines += [f"  {rank.rank:>4}  {rank.host} process {rank.pid}  step {rank.step}  {rank.state}" for rank in shown]
    elif silent and status.state == "running":
        lines.append(f"now: {silent[0].state}")
    if status.checkpoint:
        name, age = status.checkpoint
        lines.append(f"last checkpoint: {name}, {duration(age)} ago")
    room = max(0, min(LOG, height - len(lines) - 2))
    if status.log and room:
        lines += ["log.txt:", *(f"  {line}" for line in status.log[-room:])]
    return [_cut(line, width) for line in lines]


def title(status: Status) -> str:
    """Which run it is, and of what."""
    config = status.config
    parts = [shown(status.folder)]
    if config.get("model"):
        parts.append(printable(f"{config['model']} on {config.get('dataset', 'auto')}")[:200])
    if (cards := config.get("device_num", 1)) > 1:
        parts.append(f"{cards} cards")
    return " · ".join(parts)


def state(status: Status) -> str:
    """The state, and who works there, as a line."""
    where = f", {status.where}" if status.where else ""
    return f"{status.state}{where}" + (", asked to stop" if status.asked else "")


def pace(status: Status) -> str:
    """How far it is, how fast it goes, what is left, as a line."""
    words = [position(status)]
    if status.rate:
        words.append(f"{status.rate:,.0f} images/s")
    if status.left is not None:
        words.append(f"{duration(status.left)} left")
    return " · ".join(words)


def position(status: Status) -> str:
    """How far it is: the epoch at work, and the step in it."""
    if status.state == "running" and status.epoch < status.epochs:
        step = f", step {status.step:,} of {status.steps:,}" if status.steps else ""
        return f"epoch {status.epoch + 1} of {status.epochs}{step}"
    plural = "s" * (status.step != 1)
    step = f", {status.step:,} step{plural} of the next" if status.step and status.state != "finished" else ""
    return f"{status.epoch} of {status.epochs or NONE} epochs done{step}"


def line(status: Status) -> str:
    """For a log, where the screen is not redrawn: what has changed is in it."""
    last = status.rows[-1] if status.rows else None
    tested = f"  train_loss {last['train_loss']:.4f}  top1 {last['top1']:.2f} %" if last else ""
    left = "" if status.left is None else f"  {duration(status.left)} left"
    why = f": {status.why}" if status.why else ""
    asked = "  asked to stop" if status.asked else ""
    done = f"{status.epoch} of {status.epochs or NONE} epochs"
    return f"{shown(status.folder)}: {status.state}{why}  {done}{tested}{left}{asked}"


def summary(runs: Sequence[Status]) -> str:
    """How many runs there are of each state."""
    counts = Counter(run.state for run in runs)
    return f"{len(runs)} runs: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


HEADER = ("run", "seed", "state", "epoch", "Top-1 (%)", "left")


def cells(runs: Sequence[Status], folder: Path) -> list[list[str]]:
    """A row a run: those of HEADER."""
    found = []
    for run in runs:
        last = f"{run.rows[-1]['top1']:.2f}" if run.rows else NONE
        left = NONE if run.left is None else duration(run.left)
        epoch = f"{run.epoch} of {run.epochs}" if run.epochs else NONE
        name = printable(run.folder.relative_to(folder))
        found.append([name, str(run.config.get("seed", NONE)), run.state, epoch, last, left])
    return found


def rows(runs: Sequence[Status], folder: Path, width: int = 80, height: int = 40) -> list[str]:
    """The table of several runs as lines: those at work first where not all have room."""
    order = sorted(runs, key=lambda run: not run.is_at_work)
    shown_runs = order[: max(1, height - 4)]
    body = [list(HEADER), *cells(shown_runs, folder)]
    widths = [max(len(row[i]) for row in body) for i in range(len(HEADER))]
    widths[0] = max(10, min(widths[0], width - sum(widths[1:]) - 2 * len(widths)))

    def padded(row: Sequence[str]) -> str:
        name = row[0] if len(row[0]) <= widths[0] else "…" + row[0][1 - widths[0] :]
        figures = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join([name.ljust(widths[0]), *figures])

    more = [f"and {len(runs) - len(shown_runs)} more"] if len(runs) > len(shown_runs) else []
    return [_cut(text, width) for text in (summary(runs), "", *map(padded, body), *more)]


def shown(folder: Path) -> str:
    """A folder as a user would type it, fit for any terminal."""
    return printable(relative_to_root(folder))


# -- curves ----------------------------------------------------------------------------------------------------------


def curve(values: Sequence[float], width: int, height: int, low: float, high: float, marks: str = MARKS) -> list[str]:
    """Values as columns of `height` lines, `low` at the bottom; of more than `width` each column is a mean."""
    if len(values) > width:
        ends = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(ends)]
    full = len(marks) - 1
    span = (high - low) or 1.0
    levels = [min(height * full, max(1, round((value - low) / span * height * full))) for value in values]
    return [
        "".join(marks[min(full, max(0, level - full * row))] for level in levels) for row in reversed(range(height))
    ]


def _losses(status: Status, width: int) -> list[float]:
    """The training loss in parts of an epoch as long as there is room, else by epoch."""
    parts = []
    for row in [*status.rows, *status.begun]:
        sums = row.get("trace") or row.get("trace_of_rank_0") or []
        if len(sums) > 1 and sums[-1] > 0:
            scale = row["train_loss"] * len(sums) / sums[-1]
            parts.append([scale * (b - a) for a, b in zip([0.0, *sums], sums, strict=False)])
        else:
            parts.append([row["train_loss"]])
    fine = [value for part in parts for value in part]
    return fine if len(fine) <= width else [row["train_loss"] for row in [*status.rows, *status.begun]]


def _curves(status: Status, width: int, marks: str) -> list[str]:
    """The loss beside Top-1."""
    half = min(60, (width - 4) // 2)
    losses, top1 = _losses(status, half), [row["top1"] for row in status.rows]
    if not losses:
        return []
    left = [f"train loss {losses[-1]:.3f}" + (f", test {status.rows[-1]['test_loss']:.3f}" if top1 else "")]
    left += curve(losses, half, TALL, 0.0, max(losses), marks)
    left.append(f"0 to {max(losses):.3g} nats")
    right = ["the first test comes after an epoch", *[""] * (TALL + 1)]
    if top1:
        best = status.best
        right = [f"Top-1 {top1[-1]:.2f} %, best {best['top1']:.2f} % in epoch {best['epoch']}"]
        right += [*curve(top1, half, TALL, 0.0, max(*top1, 1.0), marks), f"0 to {max(top1):.3g} %"]
    return [f"{a[:half]:<{half}}    {b[:half]}".rstrip() for a, b in zip(left, right, strict=True)] + [""]


def _bar(status: Status, width: int, marks: str) -> str:
    room = max(10, min(60, width - 10))
    done = round(room * status.share)
    return f"[{marks[-1] * done}{'.' * (room - done)}] {100 * status.share:.0f} %"


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"
