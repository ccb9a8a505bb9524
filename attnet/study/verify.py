"""Does a result hold? Its hashes, its weights tested again, and a window of its steps taken again, bit for bit."""

from __future__ import annotations

import argparse
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from attnet.base.errors import AttnetError, answer, in_sentences
from attnet.base.files.paths import resolve_path
from attnet.base.host import DECISIVE, environment, usable_cores
from attnet.base.json_files import misfit, read_lines, read_object
from attnet.base.words import table
from attnet.engine.evaluation import evaluate_weights
from attnet.engine.names import BEST, CONFIG, LAST, METRICS, PREVIOUS, RESULT
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan, plan_evaluation
from attnet.engine.result import (
    ROW,
    Result,
    check_parameters,
    code_link,
    configuration_link,
    data_link,
    problem,
    seal,
    weights_link,
)
from attnet.engine.run_folder import load_newest
from attnet.engine.training import Training, traced_steps
from attnet.model.units import is_own_code

AGREE, DIFFER, CANNOT = "agree", "differ", "cannot compare"
NEAR = 0.02  # of the sum of losses, where the code or the machine is another
TOP1 = 0.5  # points, likewise
TESTED_AS = ("amp", "channels_last", "test_batch_size", "device_type", "device_id")  # decides the last digits of a test


@dataclass(frozen=True)
class Finding:
    """One comparison: `what`, its outcome (agree, differ, cannot compare), and why or by how much."""

    what: str
    outcome: str
    detail: str


def verify(
    run: str | Path, *, steps: int = 100, seed: int | None = None, data_path: str = "", unit: str = ""
) -> list[Finding]:
    """Hold a result against its hashes, its weights and its own training.

    Args:
        run: a finished run's folder, or a record (`attnet report --record`), which has no weights. A relative path
            starts at the repository root.
        steps: most training steps that are taken again; 0: none.
        seed: of the choice of the window; None: another one each time.
        data_path: where the data lie here; "": as recorded.
        unit: the unit of your own that it was trained with: code is not run because a file names it.

    Returns:
        The findings in order. Bits are compared where code, torch, processor and threads are the same, else numbers to
        a tolerance that is said.

    Raises:
        AttnetError: no result there.
    """
    place = resolve_path(run)
    content, rows, folder = _read(place)
    chain = content.get("chain") or {}
    findings = [*_words(content, rows, chain, folder)]
    try:
        check_parameters(content["parameters"])
        named = content["parameters"].get("unit")
        if named and is_own_code(named) and named != unit:
            raise AttnetError(f"unit={named!r} is no part of attnet; if you trust it, give --unit {named}")
        config = TrainConfig(**content["parameters"]).replace(resume="", progress="none")
        config = config.replace(data_path=data_path) if data_path else config
        plan = make_plan(config if config.is_train and not config.is_pretrain else config.replace(is_pretrain=False))
    except (AttnetError, KeyError, TypeError) as error:
        return [*findings, Finding("the training", CANNOT, f"it cannot be planned here: {error}")]
    findings += [_data(plan, chain)]
    same, why = _same_bits(content, chain, plan)
    findings += [Finding("code and machine", AGREE if same else CANNOT, why)]
    findings += _tested_again(config, content, folder, same)
    if steps:
        findings += [_taken_again(plan, config, rows, folder, same, steps, random.Random(seed))]
    return findings


def _read(place: Path) -> tuple[dict, list[dict], Path | None]:
    """What a result says, its epochs, and its folder where there is one."""
    if place.is_dir():
        rows = read_lines(place / METRICS, ROW, ("epoch", "top1")) if (place / METRICS).exists() else []
        return _checked(place / RESULT, read_object(place / RESULT)), rows, place
    content = read_object(place)
    if content.get("kind") != "training":
        raise AttnetError(f"{place}: no record of a training (attnet report --record), nor a run folder")
    known = {name: content[name] for name in Result.__dataclass_fields__ if name in content and name != "history"}
    rows = content.get("history", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise AttnetError(f"{place}: its history is no list of epochs; restore it from a copy")
    for row in rows:
        if wrong := misfit(row, ROW) or ("" if "top1" in row else "lacks top1"):
            raise AttnetError(f"{place}: of an epoch in its history {wrong}; restore it from a copy")
    return _checked(place, known), rows, None


def _checked(file: Path, content: dict) -> dict:
    if wrong := problem(content):
        raise AttnetError(f"{file}: {wrong}; restore it from a copy")
    return {"parameters": {}, "chain": {}} | content


def _words(content: Mapping, rows: list[dict], chain: Mapping, folder: Path | None) -> Iterator[Finding]:
    """What needs neither data nor training."""
    if "seal" not in chain:
        yield Finding("seal", CANNOT, "the result has none: it is from before there were any")
    else:
        found = seal(content, rows)
        said = f"{chain['seal']} recorded, {found} found"
        yield Finding("seal", AGREE if found == chain["seal"] else DIFFER, said)
    best = max((row["top1"] for row in rows), default=None)
    if best is not None:
        same = best == content["top1"] and rows[-1]["top1"] == content["last_top1"]
        yield Finding(
            "Top-1 and the epochs",
            AGREE if same else DIFFER,
            f"{content['top1']:.2f} %, the best epoch has {best:.2f} %",
        )
    if "configuration" in chain:
        wrong = [] if configuration_link(content["parameters"]) == chain["configuration"] else [RESULT]
        if folder is not None and (folder / CONFIG).exists():
            # As it stands there: parameters that came later are in neither. It was written when the run began, and
            # where it lies and on how many cards it goes on may be given anew.
            begun, ended = (_fixed(read) for read in (read_object(folder / CONFIG), content["parameters"]))
            wrong += [] if begun == ended else [CONFIG]
        detail = f"other parameters than were trained with in {', '.join(wrong)}" if wrong else chain["configuration"]
        yield Finding("configuration", DIFFER if wrong else AGREE, detail)
    for name, link in (chain.get("weights") or {}).items() if folder is not None else ():
        if Path(name).name != name or not os.path.isfile(folder / name):  # the result may name any file there is
            yield Finding(name, CANNOT, "there is no file of that name in the folder")
        else:
            found = weights_link(folder / name)
            yield Finding(name, AGREE if found == link else DIFFER, f"{link} recorded, {found} found")


def _fixed(parameters: Mapping[str, object]) -> dict[str, object]:
    """What no training may go on with otherwise."""
    free = {*TrainConfig.named(decides="never"), *TrainConfig.named(decides="start")}
    return {name: value for name, value in parameters.items() if name not in free}


def _data(plan: Plan, chain: Mapping) -> Finding:
    begun, here = chain.get("data") or {}, data_link(plan.dataset)
    if not begun:
        return Finding("data", CANNOT, "the result does not say which they were")
    other = [name for name in here if begun.get(name) != here[name]]
    if other:
        return Finding(
            "data", DIFFER, "; ".join(f"{name}: {begun.get(name)} recorded, {here[name]} here" for name in other)
        )
    return Finding(
        "data", AGREE, f"{here['training images']:,} + {here['test images']:,} images, every pixel and label"
    )


def _same_bits(content: Mapping, chain: Mapping, plan: Plan) -> tuple[bool, str]:
    """Whether the same bits can be expected here, and why not. As many threads as then are taken where there are."""
    recorded = content.get("environment") or {}
    threads = recorded.get("threads")
    if isinstance(threads, int) and 1 <= threads <= usable_cores():
        torch.set_num_threads(threads)
    here = environment(plan.device)
    decisive = [name for name in (*DECISIVE, "instructions") if recorded.get(name) != here.get(name)]
    other = [f"{name} {recorded.get(name)} then, {here.get(name)} now" for name in decisive]
    if chain.get("code") != code_link():
        other.insert(0, "attnet's code is another")
    if plan.device.is_accelerator:
        other.append("an accelerator's sums differ in the last digits from run to run")
    return not other, "; ".join(
        other
    ) + ": numbers are compared to a tolerance" if other else "the same: bits are compared"


def _tested_again(config: TrainConfig, content: Mapping, folder: Path | None, same: bool) -> Iterator[Finding]:
    """The weights that were kept, on the test images."""
    if folder is None:
        yield Finding("Top-1 of the weights", CANNOT, "a record has no weights; give the run's folder")
        return
    for name, key in ((BEST, "top1"), (LAST, "last_top1")):
        if not (folder / name).is_file():
            continue
        try:
            asked = {"pretrained": str(folder / name), "device_type": "auto", "data_path": config.data_path}
            asked |= {"unit": config.unit} if config.unit else {}
            asked["test_images"] = (content.get("images") or {}).get("test", config.test_images)  # a mode asks for more
            if same:  # bits are compared: as they were tested then, whatever would be quicker here
                asked |= {name: getattr(config, name) for name in TESTED_AS}
            found = evaluate_weights(plan_evaluation(TrainConfig(**asked))).top1
        except AttnetError as error:
            yield Finding(f"Top-1 of {name}", CANNOT, str(error))
            continue
        near = found == content[key] if same else abs(found - content[key]) <= TOP1
        yield Finding(
            f"Top-1 of {name}",
            AGREE if near else DIFFER,
            f"{content[key]:.2f} % recorded, {found:.2f} % tested again" + ("" if same else f" (within {TOP1} points)"),
        )


def _taken_again(
    plan: Plan,
    config: TrainConfig,
    rows: list[dict],
    folder: Path | None,
    same: bool,
    steps: int,
    choice: random.Random,
) -> Finding:
    """From the seed, or from the end of the last epoch but one, up to one of the sums of losses on record."""
    what = "steps taken again"
    if not config.is_train or config.is_pretrain:
        return Finding(what, CANNOT, "only trainings from a seed are repeated")
    starts = [0, *([len(rows) - 1] if folder is not None and len(rows) > 1 and (folder / PREVIOUS).exists() else [])]
    epoch = choice.choice(starts)
    trace = rows[epoch].get("trace") if rows else None
    if not trace:
        return Finding(
            what, CANNOT, "no sums of losses are on record (older runs, and runs on several cards, have none)"
        )
    training = None
    try:
        training = Training(plan)
        if epoch:
            training.load_state(load_newest(folder, (PREVIOUS,)))
        marks = traced_steps(len(training.train_batches))[: len(trace)]
        within = [mark for mark in marks if mark <= steps]
        end = choice.choice(within or marks[:1])
        training.train_step.train()
        for micro_batches in training.train_batches.epoch(training.epoch):
            training.advance(micro_batches)
            if training.step == end:
                break
        recorded, found = trace[marks.index(end)], training.loss_sum.item()
    except (AttnetError, KeyError, TypeError) as error:
        return Finding(what, CANNOT, f"{PREVIOUS}: {error}" if epoch else str(error))
    finally:
        if training is not None:
            training.train_step.let_go()
    near = found == recorded if same else math.isclose(found, recorded, rel_tol=NEAR)
    where = f"epoch {epoch + 1}, steps 1 to {end}: sum of losses {recorded!r} recorded, {found!r} now"
    return Finding(what, AGREE if near else DIFFER, where + ("" if same else f" (within {100 * NEAR:g} %)"))


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """`attnet verify RUN|RECORD`: exit status 0 where nothing differs, 1 where something does."""
    parser = argparse.ArgumentParser(
        prog="attnet verify",
        description="Hold a result against its hashes, test its weights again, and take some of its training steps "
        "again. Exit status 1 where something differs.",
    )
    parser.add_argument("run", metavar="RUN|RECORD", help="a finished run's folder, or a record of data/results/")
    parser.add_argument("--steps", type=int, default=100, help="most steps that are taken again; 0: none (default 100)")
    parser.add_argument("--seed", type=int, help="of the choice which ones (default: others each time)")
    parser.add_argument("--data_path", default="", help="where the data lie here (default: as recorded)")
    parser.add_argument("--unit", default="", help="the unit of your own that it was trained with: package.module:name")
    options = parser.parse_args(arguments)
    given = {"steps": options.steps, "seed": options.seed, "data_path": options.data_path, "unit": options.unit}
    findings = verify(options.run, **given)
    answer(table(("what", "outcome", "detail"), [(f.what, f.outcome, f.detail) for f in findings], words=range(3)))
    return int(any(finding.outcome == DIFFER for finding in findings))
