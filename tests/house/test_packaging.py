"""The house around the package: dependency lists, licence, Makefile, CI script.

The Makefile is run for real in copies, with a stand-in for Python that records what is asked of pip and
papermill, so that no test here needs a network or an installation.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings tomli
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
TARGETS = ["help", "run", "test", "test-all", "lab", "lint", "data", "clean"]
HOUSE = {"notebooks", "attnet", "data", "tests", ".ci"} | {
    "environment.yml", "README.md", "pyproject.toml", "Makefile", "LICENSE", ".gitignore", "constraints.txt",
}  # fmt: skip


def requirement(text: str) -> tuple[str, str]:
    """("papermill", ">=2.6") of "papermill >= 2.6"."""
    name, specifier = re.fullmatch(r"([A-Za-z0-9._-]+?)\s*([<>=!~].*)?", text.strip()).groups()
    return re.sub(r"[-_.]+", "-", name).lower(), (specifier or "").replace(" ", "")


# ---- dependencies ----


def conda_and_pip() -> tuple[dict[str, str], list[str]]:
    """The conda requirements of environment.yml, and the lines of its pip section."""
    entries = ENVIRONMENT["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    return dict(requirement(entry) for entry in entries if isinstance(entry, str)), pip


def test_environment_yml_is_pyproject():
    conda, pip = conda_and_pip()
    project = PROJECT["project"]
    assert conda.pop("python") == project["requires-python"]
    assert conda.pop("pip") == ""
    assert "-e ." in pip, "the conda environment must install attnet itself"
    listed = dict(requirement(line) for line in pip if line != "-e .") | conda
    assert listed == dict(map(requirement, project["dependencies"]))


def test_ascend_is_never_default():
    extras = PROJECT["project"]["optional-dependencies"]
    default = set(dict(map(requirement, PROJECT["project"]["dependencies"])))
    everything = default | {requirement(line)[0] for lines in extras.values() for line in lines}
    assert not default & {"torch-npu", "apex"}
    assert "apex" not in everything, "PyPI's apex is another project"
    bounds = dict(map(requirement, PROJECT["project"]["dependencies"]))["torch"]
    assert dict(map(requirement, extras["ascend"])) == {"torch-npu": bounds}


def test_the_exact_versions_are_within_the_bounds():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = dict(requirement(line.split(";")[0]) for line in lines if not line.startswith("#"))
    wanted = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"]
    for name, bounds in map(requirement, wanted):
        assert name in exact, f"constraints.txt lacks {name}"
        assert SpecifierSet(bounds).contains(exact[name].removeprefix("==")), (name, bounds, exact[name])


def test_licence_is_apache():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert "Copyright 2026 The attnet authors" in text


# ---- the house ----


def test_ci_runs_what_the_readme_says():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    for line in ("make lint", "make test", ' *make test-all ARGS="-m slow"'):  # together all of them
        assert re.search(f"^{line}$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def git(*arguments: str) -> list[str]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode > 1:  # check-ignore says 1 for "none of them"
        pytest.skip(f"git does not read this checkout: {done.stderr.strip()}")
    return done.stdout.splitlines()


def test_nothing_else_at_the_top_level():
    top = {name.split("/")[0] for name in git("ls-files")}
    assert top <= HOUSE, f"not part of the house: {sorted(top - HOUSE)}"


def test_runs_and_images_are_ignored_results_are_not():
    ignored = ["runs/train_1p/train_1p.ipynb", "data/cifar-10-batches-py/data_batch_1", ".venv/ready"]
    kept = ["data/results/cpu_step.json", "data/README.md", "tests/assets/x.npz", "notebooks/x.ipynb"]
    assert git("check-ignore", *ignored, *kept) == ignored


# ---- the Makefile ----

# Stands in for Python: makes a `.venv` whose python is itself, and records every call to pip and papermill.
FAKE_PYTHON = r"""#!/bin/sh
case "$1 $2" in
    "-c "*) exit 0 ;;
    "-V "*) echo "Python 3.11.0" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo venv >>calls ;;
    "-m pip") [ "$3" = --version ] && exit 0
        echo "pip $*" >>calls
        [ ! -f pip-says ] || { cat pip-says; exit 1; } ;;
    "-m papermill") echo "$*" >>calls
        case "$*" in
            *) echo '{}' >"$6"; echo "epoch 1"
                [ ! -f papermill-says ] || { cat papermill-says >&2; exit 1; } ;;
        esac ;;
    *) echo "$*" >>calls; echo "ran $*" ;;
esac
"""


class House:
    """A copy of the Makefile and pyproject.toml in which `make` can be called."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)
        self.script("fake-python", FAKE_PYTHON)

    def script(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def make(self, *arguments: str, python: str | None = "./fake-python", path: str | None = None):
        """Call make as from a fresh shell (an outer make's flags stay out); returns (code, output)."""
        environment = {"PATH": path or os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C"}
        if python:
            environment["PYTHON"] = python
        done = subprocess.run(
            [shutil.which("make"), *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in done.stdout
        return done.returncode, done.stdout

    def calls(self) -> list[str]:
        """What was asked since the last look."""
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [" ".join(line.split()) for line in lines]


@pytest.fixture
def house(tmp_path):
    if not shutil.which("make"):
        pytest.skip("no make on this machine")
    return House(tmp_path / "a house")  # a space in the path is nothing unusual


def test_help_lists_every_target(house):
    code, text = house.make("help")
    assert code == 0
    assert re.findall(r"^  make ([\w-]+) +\S", text, re.MULTILINE) == TARGETS
    assert house.make() == (0, text), "make alone is make help"
    for target in TARGETS:
        code, text = house.make("-n", target)
        assert code == 0, text


@pytest.mark.parametrize("target", ["foo", "tests"])
def test_unknown_target_is_a_sentence(house, target):
    (house.folder / "tests").mkdir()  # a folder of that name must not count as made
    code, text = house.make(target)
    assert code == 2
    assert f"There is no target '{target}'; the targets are: {' '.join(TARGETS)}." in text


def test_too_old_python_is_a_sentence(house):
    house.script("old-python", '#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.8.18" && exit 0\nexit 10\n')
    code, text = house.make("run", python="./old-python")
    assert code == 2
    assert "attnet needs Python 3.10 or newer, but ./old-python is Python 3.8.18" in text
    assert not (house.folder / ".venv").exists()


def test_missing_python_is_a_sentence(house):
    tools = house.folder / "tools"
    tools.mkdir()
    for tool in ("sh", "cat", "rm", "mkdir", "date", "grep", "sed", "tail"):
        (tools / tool).symlink_to(shutil.which(tool))
    # A shim with nothing behind it is on PATH, yet no Python.
    house.script("tools/python3.11", '#!/bin/sh\necho "python3.11: command not found" >&2\nexit 127\n')
    code, text = house.make("run", python=None, path=str(tools))
    assert code == 2
    assert "No working Python 3.10 or newer was found (tried: python3.11 python3.12" in text


def test_the_first_python_that_works_is_used(house):
    house.script("python3.11", '#!/bin/sh\necho "python3.11: command not found" >&2\nexit 127\n')
    house.script("python3.12", FAKE_PYTHON)
    code, text = house.make("data", python=None, path=f"{house.folder}:{os.environ['PATH']}")
    assert code == 0, text
    assert "Setting up .venv with python3.12" in text


def test_python_without_venv_is_a_sentence(house):
    house.script("bare-python", "#!/bin/sh\nexit 11\n")
    code, text = house.make("test", python="./bare-python")
    assert code == 2
    assert "apt install python3-venv" in text


def test_set_up_happens_once(house):
    assert house.make("data")[0] == 0
    first = house.calls()
    assert first[0] == "venv" and first[-2].endswith(" -e .") and first[-1] == "-m attnet download"
    _, text = house.make("data", "ARGS=--quick")
    assert house.calls() == ["-m attnet download --quick"], "nothing changed, so nothing is asked of pip"
    assert "Setting up" not in text

    house.make("test")
    assert house.calls()[-2].endswith(" -e .[test]")
    house.make("data")
    house.make("test")
    assert house.calls() == ["-m attnet download", "-m pytest -n auto --maxprocesses 4 --dist loadfile -m not slow"]

    with open(house.folder / "pyproject.toml", "a") as file:
        file.write("# changed\n")
    house.make("data")
    calls = house.calls()
    assert "venv" not in calls and calls[-2].endswith(" -e ."), "a new pyproject.toml is installed again"


def test_test_tools_include_the_default(house):
    house.make("test")
    house.calls()
    house.make("data")
    assert house.calls() == ["-m attnet download"]


@pytest.mark.parametrize(
    "says, reason",
    [
        ("WARNING: Retrying after connection broken by 'NewConnectionError'", "(no network?)"),
        ("  ERROR: No matching distribution found for x==9", "No matching distribution found for x==9."),
        ("ERROR: none of x (from versions: none)", "no network, or nothing there for this Python"),
        ("Killed", "pip failed."),
    ],
)
def test_failed_installation_is_a_sentence_and_taken_up_again(house, says, reason):
    (house.folder / "pip-says").write_text(says + "\n")
    code, text = house.make("data")
    assert code == 2
    assert "Set-up stopped after" in text and "'pip install" in text and reason in text
    assert ".venv/setup.log" in text and says in (house.folder / ".venv" / "setup.log").read_text()
    house.calls()

    (house.folder / "pip-says").unlink()
    assert house.make("data")[0] == 0
    calls = house.calls()
    assert "venv" not in calls and calls[-2].endswith(" -e ."), "the environment made so far is used"


def test_broken_or_moved_environment_is_made_again(house):
    house.make("data")
    (house.folder / ".venv" / "bin" / "python").unlink()
    house.calls()
    assert house.make("data")[0] == 0
    assert house.calls()[0] == "venv"

    house.folder = house.folder.rename(house.folder.parent / "elsewhere")
    assert house.make("data")[0] == 0
    assert house.calls()[0] == "venv", "scripts in a moved environment point to where it was"


def test_another_python_makes_another_environment(house):
    house.make("data")
    house.calls()
    house.script("other-python", FAKE_PYTHON)
    assert house.make("data", python="./other-python")[0] == 0
    assert house.calls()[0] == "venv"
    assert house.make("data", python=None)[0] == 0
    assert house.calls() == ["-m attnet download"], "without PYTHON the environment there is used"
    assert house.make("data", python="./no-such-python")[0] == 2
    assert (house.folder / ".venv" / "ready").exists(), "nothing is removed before its successor is found"


def test_run_executes_the_notebook_and_prints_the_result(house):
    arguments = "-p model attention92 -p data_path data/cifar-10-batches-py"
    code, text = house.make("run", f"ARGS={arguments}")
    assert code == 0, text
    execute, report = house.calls()[-2:]
    assert execute.startswith("-m papermill --engine attnet notebooks/train_1p.ipynb runs/train_1p/train_1p.ipynb ")
    assert arguments in execute
    assert report == "-m attnet report --newest runs"
    assert "epoch 1" in text and "Executed notebook: runs/train_1p/train_1p.ipynb" in text

    house.make("run")
    assert (house.folder / "runs/train_1p/train_1p.1.ipynb").exists(), "an earlier notebook is kept"


def test_stopped_run_says_why_and_where(house):
    trace = "Traceback (most recent call last):\n  ...\nDataError: no CIFAR-10 at data_path='x'\n\n"
    (house.folder / "papermill-says").write_text(trace)
    code, text = house.make("run")
    assert code == 2
    assert "The run stopped: DataError: no CIFAR-10 at data_path='x'" in text
    assert "The notebook as far as it went: runs/train_1p/train_1p.ipynb" in text
    assert not any("attnet report" in call for call in house.calls())


def test_clean_keeps_runs_and_data(house):
    for kept in ("runs/train_1p", "data/cifar-10-batches-py", "attnet", "notebooks", "tests/__pycache__"):
        (house.folder / kept).mkdir(parents=True)
    house.make("data")
    assert house.make("clean")[0] == 0
    left = {path.name for path in house.folder.iterdir()}
    assert {"runs", "data", "attnet", "notebooks", "tests"} <= left
    assert ".venv" not in left and not (house.folder / "tests" / "__pycache__").exists()
