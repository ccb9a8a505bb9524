"""Take away one guard after the other, and see that a test fails: `python tests/harness_guards.py --output FILE.json`.

A guard that no test misses is a guard that the next change may lose. Each is a line of the package, written here with
what stands in its place while it is gone, and the test that has to fail then; everything happens in a copy.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attnet.base.files.outputs import output_file, write_record

ROOT = Path(__file__).resolve().parents[1]
# What it guards: (file of the package, the line or part of one, what stands there without it, the test).
GUARDS: dict[str, tuple[str, str, str, str]] = {
    "a graph computes so much and no more": (
        "model/weights/graphs.py", "if numbers > _MOST_NUMBERS * batch:", "if False:", "model/test_graphs.py"),
    "a graph's numbers lie in its file": (
        "model/weights/graphs.py", "if tensor.external_data or tensor.data_location:", "if False:",
        "model/test_graphs.py"),
    "a rank whose torchrun died while it started ends": (
        "engine/distributed.py", "if launcher and (parent == 1", "if False and (parent == 1",
        "engine/test_distributed.py::test_a_rank_whose_torchrun_died_while_it_started_ends_and_asks_nobody_else_to_stop"),
    "a pickle may name numpy's arrays and nothing else": (
        "data/pickles.py", "if (module, name) not in KNOWN:", "if False:", "data/test_pickles.py"),
    "what a pickle names is never called": (
        "data/pickles.py", "if make is None:", "if make is None and False:", "data/test_pickles.py"),
    "a pickle's values have a number": (
        "data/pickles.py", "for _ in range(_OPCODES):", "while True:", "data/test_pickles.py"),
    "a pickle copies no more than it has": (
        "data/pickles.py", "if self.copied > len(self.blob):", "if False:", "data/test_pickles.py"),
    "an array has the bytes that it needs": (
        "data/pickle_names.py", "if math.prod(sizes) * kind.numpy.itemsize != len(buffer)", "if False",
        "data/test_pickles.py"),
    "an array's type is plain": (
        "data/pickle_names.py", "or state[0] != 3 or state[2:] != rest", "", "data/test_pickles.py"),
    "links and devices in an archive": (
        "data/archive.py", "if member.type not in _PLAIN:", "if False:", "data/test_pickles.py"),
    "an archive's header is not believed": (
        "data/archive.py", "if member.size > most:", "if False:", "data/test_pickles.py"),
    "an archive unpacks to so much and no more": (
        "data/archive.py", "if self.left < 0:", "if False:", "data/test_pickles.py"),
    "JSON of another type": (
        "base/json_files.py", "if problem := misfit(content, form):", "if False:", "base/test_json_files.py"),
    "JSON nested without end": (
        "base/json_files.py", "if _depth_exceeds(value, _DEPTH):", "if False:", "base/test_json_files.py"),
    "resume imports nothing that a file names": (
        "engine/run_folder.py", "and config.unit != begun.unit:", "and False:", "engine/test_run_folder.py"),
    "verify imports nothing that a file names": (
        "study/verify.py", "if named and is_own_code(named) and named != unit:", "if False:", "study/test_verify.py"),
    "a folder that holds anything of a run is taken": (
        "engine/run_folder.py", "if any((path / name).exists() for name in OURS) or", "if",
        "engine/test_run_folder.py"),
    "a checkpoint of another form is none": (
        "engine/run_folder.py", 'if not misfit(state, _CHECKPOINT) and {"epoch", "step"} <= state.keys():', "if 1:",
        "engine/test_run_folder.py"),
    "a network that says nothing is no result": (
        "engine/evaluation.py", "    if found.not_finite:", "    if False:", "engine/test_evaluation.py"),
    "a run goes on with its own data": (
        "engine/training.py", "if begun[name] != self.data[name]:", "if False:", "study/test_verify.py"),
    "a changed result is seen": (
        "study/verify.py", 'AGREE if found == chain["seal"] else DIFFER', "AGREE", "study/test_verify.py"),
    "recorded parameters of another type are damage": (
        "engine/result.py", 'check_parameters(content["parameters"])', "pass", "study/test_report.py"),
    "values within values are counted before they are made": (
        "model/weights/formats.py", "if values.deepest > _DEPTH or values.repeated", "if False and values.repeated",
        "model/test_contents.py::test_values_within_values_without_end_are_never_made[a long key again and again]"),
    "a file of weights is a plain file": (
        "model/weights/formats.py", "if path.exists() and not path.is_file():", "if False:",
        "model/test_contents.py::test_what_is_no_plain_file_is_not_waited_for[folder.pt]"),
    "momentum is that of the weights that are trained": (
        "engine/precision.py", "if held and not (fits and", "if False and not (fits and",
        "engine/test_precision.py::test_momentum_of_other_weights_is_refused"),
    "momentum lies in memory as its weights do": (
        "engine/precision.py", "torch.empty_like(weights[place]).copy_(held[place])", "held[place]",
        "engine/test_precision.py::test_momentum_goes_on_with_its_own_weights_however_they_lie_in_memory"),
    "no line goes through a link": (
        "base/files/opening.py", 'getattr(os, "O_NOFOLLOW", 0)', "0", "base/test_files.py"),
    "a result names no file outside its folder": (
        "study/verify.py", "if Path(name).name != name or not os.path.isfile(folder / name):", "if False:",
        "study/test_verify.py::test_no_file_outside_the_folder_is_read_because_a_result_names_it[../secret]"),
    "a sweep imports nothing that a list names": (
        "study/sweeps/configs.py", "and is_own_code(unit) and unit != base.unit:", "and False:",
        "study/test_sweep.py::test_a_list_imports_nothing_that_it_names"),
    "an error is of bounded length": (
        "base/errors.py", "brief(printable(line), _LONGEST)", "line", "base/test_words.py"),
    "the last epoch trains at full size": (
        "data/augment.py", "math.floor((epochs - 1 - number)", "math.floor((epochs - number)", "data/test_batches.py"),
    "resume calls no hook that a file names": (
        "engine/run_folder.py", "if is_own_hook(begun.log) and config.log != begun.log:", "if False:",
        "engine/test_hooks.py"),
    "a lease is won by one alone": (
        "engine/holding/lease.py", 'with open(lease.marker, "x",', 'with open(lease.marker, "w",',
        "engine/test_lease.py"),
    "who has lost a lease writes nothing": (
        "engine/holding/lease.py", 'open(self._part("beat"), "rb").close()', "pass", "engine/test_lease.py"),
    "a folder of ours within a run is no link": (
        "base/files/opening.py", "if not stat.S_ISDIR(os.lstat(path).st_mode):", "if False:",
        "engine/test_status.py::test_signs_go_through_no_link_and_take_nothing_away_there"),
    "weights are finite numbers": (
        "model/weights/loading.py", "if wrong := first_not_finite(", "if False and first_not_finite(",
        "model/test_contents.py::test_values_that_are_no_finite_numbers_are_named[nan]"),
    "a spreadsheet runs nothing that a file says": (
        "base/words.py", "and cell.startswith(_FORMULA) else cell", "and False else cell", "study/test_report.py"),
    "a graph larger than protobuf reads is not read": (
        "model/weights/graphs.py", ".st_size) > _LARGEST_FILE:", ".st_size) < 0:",
        "model/test_contents.py::test_a_graph_larger_than_protobuf_reads_is_not_read"),
    "what lies beside weights has a stand-in by a table alone": (
        "model/weights/others.py", 'if any(name == left or name.startswith(f"{left}.") for left in LEFT_OUT):',
        "if True:",
        "model/test_others.py::test_no_other_name_has_a_stand_in"),
    "a download goes through no link": (
        "data/download.py", "if os.path.lexists(part) and (part.is_symlink() or not part.is_file()):", "if False:",
        "data/test_download.py"),
}  # fmt: skip


def missed(place: Path, guard: str) -> str:
    """Take one guard away in the copy at `place` and run its test: "" when the test fails, else what happened."""
    file, line, without, test = GUARDS[guard]
    source = place / "attnet" / file
    text = source.read_text(encoding="utf-8")
    if text.count(line) != 1:
        return f"{file} holds this line {text.count(line)} times: {line}"
    source.write_text(text.replace(line, without), encoding="utf-8")
    try:
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(place / "tests" / test)]
        surroundings = os.environ | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(words, cwd=place, env=surroundings, capture_output=True, text=True, check=False)
    finally:
        source.write_text(text, encoding="utf-8")
    return "" if done.returncode == 1 else f"{test} ended with {done.returncode}: {done.stdout[-300:]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="", help="record to write, FILE.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "attnet"
        place.mkdir()
        for name in ("attnet", "tests", "notebooks", "pyproject.toml", "README.md", "constraints.txt"):
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, place / name)
        for guard, (file, _, _, test) in GUARDS.items():
            problem = missed(place, guard)
            rows.append({"guard": guard, "file": f"attnet/{file}", "test": f"tests/{test}", "noticed": not problem})
            print(f"{guard}: {problem or 'a test fails without it'}", flush=True)
    noticed = sum(row["noticed"] for row in rows)
    print(f"{noticed} of {len(rows)} guards are missed when they are gone")
    if options.output:
        what = "guards taken away one by one, each with the test that fails without it"
        content = {"kind": "guards", "what": what, "noticed": noticed, "guards": len(rows), "rows": rows}
        write_record(output_file(options.output, (".json",)), content, "python tests/harness_guards.py")
    return int(noticed < len(rows))


if __name__ == "__main__":
    sys.exit(main())
