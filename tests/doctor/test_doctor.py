"""The doctor: healthy and broken machines, made of real child processes, files and tools on PATH."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from attnet import doctor
from attnet.base.cann import cann_version, find_cann
from attnet.base.device import KINDS
from attnet.base.files.paths import repository_root
from attnet.doctor import ascend, command, machine, probe, verdict
from attnet.doctor.fact import Fact, anonymous

ROOT = Path(__file__).resolve().parents[2]
NOWHERE: dict[str, object] = {"roots": (), "device_files": Path("/nonexistent")}  # no Ascend, whatever runs the test
CPU = {"kind": "CPU", "count": 1, "names": ["EPYC"], "memory": 2**34, "half": ["bfloat16"], "backend": "gloo"}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No settings of the machine that runs the tests."""
    for name in (
        *machine._SETTINGS,
        *(kind.visible for kind in KINDS.values() if kind.visible),
        "ASCEND_HOME_PATH",
        "ASCEND_TOOLKIT_HOME",
        "ASCEND_OPP_PATH",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def write(file: Path, text: str, executable: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    if executable:
        file.chmod(0o755)
    return file


def install(folder: Path, name: str, version: str, requires: str = "", entry_points: str = "") -> None:
    """A distribution as pip leaves it, without its files."""
    info = folder / f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
    write(info / "entry_points.txt", entry_points)


def install_torch_npu(folder: Path, body: str) -> None:
    """A torch_npu that torch loads, and that does `body` then."""
    release = machine.version_of("torch").partition("+")[0]
    entry = "[torch.backends]\ntorch_npu = broken_npu:_autoload\n"
    install(folder, "torch_npu", release, f"torch=={release}.*", entry)
    write(folder / "broken_npu.py", body)


def run(*command: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=cwd, env=environment)


def problems(facts: dict) -> dict[str, str]:
    """Name -> mend of every problem."""
    everything = [item for part in facts["facts"].values() for item in part.items()]
    return {name: fact["mend"] for name, fact in everything if fact["state"] == "problem"}


def squeezed(text: str) -> str:
    return " ".join(text.split())


# ---- the whole, in child processes ----


def test_here_as_json_and_as_text():
    private = {"SOME_TOKEN": "xyzzy-17", "HOME": str(ROOT), "MASTER_ADDR": "gpu17.cluster.example"}
    code = "import sys; from attnet.doctor.command import main; print(main(['--json']), 'torch' in sys.modules)"
    done = run("-c", code, **private)
    answer, _, rest = done.stdout.rpartition("}")
    assert rest.split() == ["0", "False"], done.stderr  # works here; torch never came into this process
    facts = json.loads(answer + "}", parse_constant=pytest.fail)
    assert facts["usable"] is True and set(facts) == {"attnet", "usable", "facts", "plan"}
    assert facts["facts"]["devices"]["CPU"]["state"] == "ok"
    assert facts["facts"]["packages"]["import torch"]["value"].startswith(machine.version_of("torch"))
    assert facts["facts"]["attnet"]["plan"] == {"state": "ok", "value": "ready"}
    assert [line for line in facts["plan"] if line.startswith("network: ")]
    for secret in ("SOME_TOKEN", "xyzzy", "cluster.example", str(ROOT)):
        assert secret not in done.stdout
    assert facts["facts"]["system"]["disk"]["value"].endswith("~/runs")

    text = squeezed(doctor.report(facts))
    for part in facts["facts"].values():
        for name, fact in part.items():
            mark = {"ok": "ok", "absent": "–", "problem": "!"}[fact["state"]]
            assert squeezed(f"{mark} {name} {fact['value']} {fact.get('problem', '')}") in text
            assert "mend" not in fact or squeezed(f"- {name}: {fact['mend']}") in text
    assert all(squeezed(line) in text for line in facts["plan"])


@pytest.mark.slow
def test_no_data_and_a_terminal_without_unicode(tmp_path):
    shutil.copytree(ROOT / "attnet", tmp_path / "attnet", ignore=shutil.ignore_patterns("shipped", "__pycache__"))
    write(tmp_path / "pyproject.toml", "")
    done = run("-m", "attnet", "doctor", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    text = squeezed(done.stdout)
    assert "CIFAR-10 none at data/cifar-10-batches-py; `attnet download cifar10` fetches it" in text
    assert "What attnet will do here" in text and "data: shapes" in text


@pytest.mark.slow
def test_torch_npu_without_cann(tmp_path, monkeypatch):
    install_torch_npu(tmp_path, 'print("noise")\nraise ImportError("libhccl.so: cannot open shared object file")\n')
    monkeypatch.syspath_prepend(tmp_path)
    ask, answers = probe.ask, []
    monkeypatch.setattr(probe, "ask", lambda *question: answers.append(ask(*question)) or answers[-1])
    facts = doctor.examine(**NOWHERE)
    found = facts["facts"]["packages"]["import torch"]
    assert "Failed to load the backend extension: torch_npu" in found["problem"]
    assert found["problem"].endswith("ImportError: libhccl.so: cannot open shared object file")
    assert "install CANN and `source <CANN>/set_env.sh`" in found["mend"]
    assert "`export TORCH_DEVICE_BACKEND_AUTOLOAD=0`" in found["mend"]
    assert facts["usable"] is True
    assert facts["facts"]["devices"]["CPU"]["state"] == "ok"  # known all the same
    assert facts["plan"][0] == "only with TORCH_DEVICE_BACKEND_AUTOLOAD=0, as things are"
    assert {"import torch", "CANN"} <= set(problems(facts))
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")  # and whoever wants no NPU is left in peace
    monkeypatch.setattr(probe, "ask", lambda *_: answers[-1])  # what the child said that was asked with it
    assert not {"import torch", "CANN", "NPU"} & set(problems(doctor.examine(**NOWHERE)))


@pytest.mark.parametrize(
    ("body", "limit", "problem"),
    [
        pytest.param("import os\nos.kill(os.getpid(), 9)\n", 60.0, "ended by SIGKILL", id="killed"),
        pytest.param("import os\nos._exit(3)\n", 60.0, "exit status 3", id="left"),
        pytest.param("import time\ntime.sleep(600)\n", 0.5, "took more than 0.5 s", id="hangs"),
    ],
)
def test_child_that_does_not_answer(body, limit, problem, tmp_path, monkeypatch):
    """`import torch` that ends the process, or the child's whole answer, is a problem like any other."""
    write(tmp_path / "torch.py", body)
    monkeypatch.syspath_prepend(tmp_path)
    facts = doctor.examine(**NOWHERE, limit=limit)
    assert problem in facts["facts"]["packages"]["import torch"]["problem"]
    assert facts["usable"] is False


def test_too_little_memory_for_torch_is_not_blamed_on_torch():
    """As under `ulimit -v`."""
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (500_000 * 1024, resource.RLIM_INFINITY))\n"
    code += "import json; from attnet import doctor; print(json.dumps(doctor.examine(''))) "
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository_root(), capture_output=True, encoding="utf-8", check=True
    )
    facts = json.loads(done.stdout)
    assert facts["usable"] is False and "a process to 0.5 GiB by `ulimit -v`" in str(facts["facts"]["system"]["memory"])
    told = facts["facts"]["packages"]["import torch"]
    assert "emory" in told["problem"] and "ulimit -v unlimited" in told["mend"] and "pip" not in told["mend"]


def test_torch_that_cannot_be_used(tmp_path, monkeypatch, capsys):
    write(tmp_path / "torch.py", 'raise OSError("libtorch_cpu.so: invalid ELF header")\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert command.main(["--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["usable"] is False and facts["plan"] == [] and facts["facts"]["devices"] == {}
    assert facts["facts"]["packages"]["import torch"]["problem"] == "OSError: libtorch_cpu.so: invalid ELF header"
    assert '--force-reinstall "torch>=' in problems(facts)["import torch"]
    assert "To mend" in doctor.report(facts)


@pytest.mark.slow
def test_data_path_that_cannot_be_read(tmp_path, capsys):
    file = write(tmp_path / "cifar.txt", "no archive")
    assert command.main(["--data_path", str(file), "--json"]) == 0  # a mistake in the question, attnet works
    plan = json.loads(capsys.readouterr().out)["facts"]["attnet"]["plan"]
    assert plan["problem"].startswith("data_path: ") and "cifar.txt is a text. Needed is the folder" in plan["problem"]


# ---- Ascend ----


def test_what_ascend_takes_is_said_as_the_readme_has_it(capsys):
    """Versions, commands and variables stand once, in the room's README; the command reads them there."""
    assert command.main(["--ascend"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 120 and "|" not in shown and "`" not in shown
    words = squeezed(shown)
    assert 'pip install -e ".[ascend]"' in words and "source /usr/local/Ascend/ascend-toolkit/set_env.sh" in words
    readme = (ROOT / "attnet" / "doctor" / "README.md").read_text()
    rows = re.findall(r"^\| (.*) \|$", readme.split("## Ascend")[1], re.MULTILINE)
    assert len(rows) == 17 and "PyTorch | 1.8.1 | 2.13.0 (2.11 to 2.14 are taken)" in rows
    assert machine.torch_bounds() == ("2.11", "2.15")
    for name in re.findall(r"[A-Z]+_[A-Z_]+|torch_npu|CANN", "\n".join(rows)):
        assert name in words
    assert not re.search(r"python -m attnet\.", readme)


def test_every_file_of_the_room_is_in_its_readme():
    room = ROOT / "attnet" / "doctor"
    listed = re.findall(r"^\| `(\w+\.py)`", (room / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in room.glob("*.py"))


def cann(folder: Path, file: str = "x86_64-linux/ascend_toolkit_install.info", text: str = "version=8.5.0\n") -> Path:
    home = folder / "Ascend" / "ascend-toolkit" / "latest"
    write(home / file, text)
    write(home.parent / "set_env.sh", "")
    return home


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "aarch64-linux/ascend_toolkit_install.info",
            "package_name=Ascend-cann-toolkit\nversion=8.5.0\ninnerversion=V1",
        ),
        ("ascend_nnae_install.info", "version=8.5.0\n"),
        ("version.cfg", "# version: 1.0\nruntime_running_version=[7.6.0.1.220:8.5.0]\n"),
        ("version.cfg", "toolkit_running_version=[8.5.0]\n"),
        ("runtime/version.info", "Version=8.5.0\n"),
    ],
    ids=["toolkit", "nnae", "cfg", "short cfg", "runtime"],
)
def test_cann_version(file, text, tmp_path):
    assert cann_version(cann(tmp_path, file, text)) == "8.5.0"


def test_cann_is_found_where_it_is(tmp_path):
    home = cann(tmp_path)
    root = tmp_path / "Ascend"
    assert find_cann({}, (root,)) == home
    newer = tmp_path / "elsewhere"
    newer.mkdir()
    assert find_cann({"ASCEND_HOME_PATH": str(newer)}, (root,)) == newer
    assert find_cann({"ASCEND_TOOLKIT_HOME": str(newer)}, (root,)) == newer
    assert find_cann({"ASCEND_HOME_PATH": str(tmp_path / "gone")}, (root,)) == home
    assert find_cann({}, (tmp_path / "gone",)) is None


def test_set_env_sourced_or_not(tmp_path):
    home = cann(tmp_path)
    root = (tmp_path / "Ascend",)
    command = f"`source {home.parent}/set_env.sh`"

    def sourced(environment: dict[str, str], torch_npu: bool = True) -> Fact:
        return ascend.examine(environment, torch_npu, root, tmp_path)["set_env.sh"]

    both = {"ASCEND_HOME_PATH": str(home), "ASCEND_OPP_PATH": str(home / "opp")}
    assert sourced(both) == Fact("sourced in this shell")
    assert sourced({}).mend == command and "ASCEND_HOME_PATH is not set" in sourced({}).problem
    assert "ASCEND_OPP_PATH is not set" in sourced({"ASCEND_HOME_PATH": str(home)}).problem
    gone = sourced({"ASCEND_HOME_PATH": str(tmp_path / "gone")})
    assert "does not exist" in gone.problem and command in gone.mend
    assert sourced({}, torch_npu=False).absent
    failed = verdict.import_torch(["torch_npu"], {"torch": {"version": "2", "CUDA": "", "ROCm": ""}}, True, home)
    assert command in failed.mend and "install CANN" not in failed.mend


def test_driver_firmware_and_device_files(tmp_path):
    root = tmp_path / "Ascend"
    write(root / "driver" / "version.info", "Version=25.2.0\nascendhal_version=7.35.23\nInnerversion=V100\n")
    write(root / "firmware" / "version.info", "Version=7.7.0.6.236\npackage_version=25.2.0\n")
    for name in ("davinci0", "davinci1", "davinci_manager"):
        write(tmp_path / "dev" / name, "")
    facts = ascend.examine({}, False, (root,), tmp_path / "dev")
    assert facts["driver"] == Fact("25.2.0") and facts["firmware"] == Fact("25.2.0")
    assert facts["device files"].value == f"2, {tmp_path}/dev/davinci0 … davinci1"
    assert "CANN" in facts["CANN"].mend  # NPUs want it
    none = ascend.examine({}, False, (), tmp_path)
    assert all(none[name].absent for name in ("CANN", "set_env.sh", "driver", "firmware", "device files"))


TABLE = """
+------------------------------------------------------------------------------------------------+
| npu-smi 25.2.0                   Version: 25.2.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 95.3        44                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3395 / 65536         |
+===========================+===============+====================================================+
| 1     910B3               | {health:13} | 95.3        44                0    / 0             |
| 0     1                   | 0000:C2:00.0  | 0           0    / 0          3395 / 65536         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
| 0       0                 | 1234567       | python                   | 100                     |
"""


@pytest.mark.skipif(os.name != "posix", reason="the stand-ins for tools are shell scripts")
@pytest.mark.parametrize(
    ("script", "value", "problem"),
    [
        pytest.param(f"cat <<'.'\n{TABLE.format(health='OK')}\n.", "version 25.2.0, 2 cards: 910B3", "", id="well"),
        pytest.param(
            f"cat <<'.'\n{TABLE.format(health='Alarm')}\n.",
            "version 25.2.0, 2 cards: 910B3",
            "card 1 is Alarm",
            id="sick",
        ),
        pytest.param(
            "echo 'dcmi module initialize failed. ret is -8005'",
            "failed",
            "dcmi module initialize failed. ret is -8005",
            id="no driver",
        ),
        pytest.param("echo broken >&2; exit 4", "failed", "broken", id="broken"),
    ],
)
def test_npu_smi(script, value, problem, tmp_path, monkeypatch):
    write(tmp_path / "npu-smi", f"#!/bin/sh\n{script}\n", executable=True)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    fact = ascend.examine({}, False, (), tmp_path)["npu-smi"]
    assert (fact.value, fact.problem) == (value, problem)
    assert bool(fact.mend) is bool(problem)


# ---- NVIDIA, packages, variables ----


@pytest.mark.skipif(os.name != "posix", reason="the stand-ins for tools are shell scripts")
def test_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    row = "NVIDIA H100 80GB HBM3, 570.86.15, 81559 MiB"
    tool = write(tmp_path / "nvidia-smi", f"#!/bin/sh\necho '{row}'\necho '{row}'\n", executable=True)
    facts = machine.nvidia()
    assert facts["nvidia-smi"].value == "2 × NVIDIA H100 80GB HBM3, 81559 MiB"
    assert not facts["driver"].absent
    write(tool, "#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    assert machine.nvidia()["nvidia-smi"].problem.startswith("Failed to initialize NVML")


def test_cpu_build_beside_an_nvidia_driver():
    cpu = {"torch": {"version": "2.13.0+cpu", "CUDA": "", "ROCm": ""}}
    fact = verdict.import_torch([], cpu, False, None)
    assert fact == Fact("2.13.0+cpu, CPU build")
    assert "CUDA build of torch 2.11 and newer, before 2.15" in verdict.with_nvidia(fact, cpu).mend
    cuda = {"torch": {"version": "2.13.0+cu130", "CUDA": "13.0", "ROCm": ""}}
    fact = verdict.import_torch([], cuda, False, None)
    assert verdict.with_nvidia(fact, cuda) == fact == Fact("2.13.0+cu130, CUDA 13.0")
    both = verdict.import_torch(["RuntimeError: Two accelerators cannot be used at the same time"], cuda, True, None)
    assert "CPU build of torch" in both.mend


def test_torch_npu_for_another_torch(tmp_path, monkeypatch):
    install(tmp_path, "torch_npu", "2.12.0.post1", "torch==2.12.0.*")
    monkeypatch.syspath_prepend(tmp_path)
    fact = machine.packages(Fact(""), npus=False)["torch_npu"]
    assert fact.value == "2.12.0.post1, for torch 2.12.0" and "torch is 2." in fact.problem
    assert fact.mend == "`pip install torch==2.12.0`, which this torch_npu needs"
    install(tmp_path / "old", "torch_npu", "2.1.0", "torch==2.1.0")
    monkeypatch.syspath_prepend(tmp_path / "old")
    old = machine.packages(Fact(""), npus=False)["torch_npu"]
    assert old.mend == '`pip install "torch_npu>=2.11,<2.15"`, which brings the torch that belongs to it'


def test_packages(tmp_path, monkeypatch):
    asked = re.search(r'"torch>=([\d.]+),<([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert machine.torch_bounds() == asked.groups()
    well = machine.packages(Fact(""), npus=True)
    assert not well["torch"].problem and not well["papermill"].problem
    if not machine.version_of("torch_npu"):
        assert ".[ascend]" in well["torch_npu"].mend
    install(tmp_path, "torch", "2.10.0")
    install(tmp_path, "apex", "0.9.10.dev0")
    write(tmp_path / "apex" / "__init__.py", "raise ImportError('never imported')")
    monkeypatch.syspath_prepend(tmp_path)
    ill = machine.packages(Fact(""), npus=False)
    assert ill["torch"].mend == f"`pip install {asked[0]}`" and ill["torch"].value == "2.10.0"
    assert ill["torch"].problem == "attnet is made for torch 2.11 and newer, before 2.15"
    assert ill["apex"].mend == "`pip uninstall apex`"


def test_variables():
    given = {
        "ASCEND_RT_VISIBLE_DEVICES": "0,1",
        "ASCEND_LAUNCH_BLOCKING": "1",
        "TASK_QUEUE_ENABLE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "PASSWORD": "xyzzy",
    }
    facts = machine.variables(given)
    assert set(facts) == set(given) - {"PASSWORD"} | {"CUDA_VISIBLE_DEVICES"}
    assert facts["ASCEND_LAUNCH_BLOCKING"].mend == "`unset ASCEND_LAUNCH_BLOCKING`"
    assert facts["TASK_QUEUE_ENABLE"] == Fact("2") and facts["MASTER_ADDR"] == Fact("127.0.0.1")
    assert facts["ASCEND_RT_VISIBLE_DEVICES"] == Fact("0,1") and facts["CUDA_VISIBLE_DEVICES"].absent


# ---- devices, and names that stay private ----


def test_devices_that_are_there_or_should_be(monkeypatch):
    npus = CPU | {"kind": "NPU", "count": 8, "names": ["910B3"] * 8, "half": ["float16", "bfloat16"], "backend": "hccl"}
    assert verdict.device(npus, True) == Fact("8 × 910B3, 16.0 GiB each, float16 and bfloat16, hccl")
    plan = verdict.expectation({"plan": ["device: 910B3 (NPU)"], "devices": [npus, CPU]}, [])
    assert plan == ["device: 910B3 (NPU)", "cards: one of 8 NPUs; device_num=8 trains on all of them, a process a card"]
    none = {"kind": "NPU", "count": 0}
    assert verdict.device(none, False).absent
    assert "update the driver" in verdict.device(none, True).mend
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "9")
    assert verdict.device(none, True).mend == "`unset ASCEND_RT_VISIBLE_DEVICES`"
    monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    assert verdict.device(none, True).mend == "`unset TORCH_DEVICE_BACKEND_AUTOLOAD`"
    sick = verdict.device({"kind": "GPU", "errors": ["RuntimeError: unknown error"]}, True)
    assert sick.problem == "RuntimeError: unknown error" and "nvidia-smi" in sick.mend


def test_anonymous(monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("LOGNAME", "alice")
    assert anonymous("/home/alice/attnet and /home/alice2 and /home/alice") == "~/attnet and /home/alice2 and ~"
    assert anonymous("/scratch/alice/data of alice") == "/scratch/…/data of alice"
    assert anonymous(f"node {socket.gethostname()}: x") == "node …: x"
