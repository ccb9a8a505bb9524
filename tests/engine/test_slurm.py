"""Slurm without a cluster: what its variables say, the batch script, and what is said when something does not fit."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from attnet.base.errors import ConfigError
from attnet.base.files.paths import repository_root
from attnet.engine import fit
from attnet.engine.launching import agent, launch, slurm
from attnet.engine.launching.batch import Job, main
from attnet.engine.launching.torchrun import Torchrun
from attnet.engine.parameters import TrainConfig

PAGE = Path(__file__).resolve().parents[2] / "attnet/engine/launching/README.md"
STEP = {
    **{"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "2"},
    **{"SLURM_NODEID": "1", "SLURMD_NODENAME": "n4", "SLURM_STEP_NODELIST": "n[3-4]", "SLURM_JOB_NUM_NODES": "2"},
}
TWO = TrainConfig(device_num=4)


def put(folder: Path, name: str, script: str) -> None:
    """A command of Slurm's that does as `script` says."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture(autouse=True)
def outside(monkeypatch, tmp_path) -> Path:
    """No Slurm at all, and a folder on the PATH for what is to be there of it."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    slurm.address.cache_clear()
    yield tmp_path / "bin"
    slurm.address.cache_clear()


@pytest.fixture
def step(monkeypatch, outside) -> None:
    """The second task of a step on two nodes, whose names do not resolve."""
    put(
        outside, "scontrol", '[ "$4" = n3 ] && host=3 || host=4; echo "NodeName=$4 Arch=x NodeAddr=10.0.0.$host Port=1"'
    )
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)


# -- which machine this is, and where all meet --------------------------------------------------------------------


def test_machines_and_meeting_point_are_slurms(step):
    config = slurm.on_this_machine(TWO)
    assert config == TWO.replace(nnodes=2, node_rank=1, dist_url="10.0.0.3:10012")
    assert slurm.on_this_machine(config) == config
    assert slurm.describe(config) == (
        "slurm: job 12, 2 machines (n[3-4]) meet at 10.0.0.3:10012; this is machine 1, n4"
    )
    words = Torchrun(config).arguments(Path("/shared/run"))
    assert "--local_addr=10.0.0.4" in words and "--rdzv_conf=is_host=0,read_timeout=600" in words


def test_no_two_jobs_steps_or_restarts_meet_at_the_same_port(step, monkeypatch):
    ports = set()
    for job, number, restart in (("12", "0", "0"), ("13", "0", "0"), ("12", "1", "0"), ("12", "0", "1")):
        for name, value in (("JOB_ID", job), ("STEP_ID", number), ("RESTART_COUNT", restart)):
            monkeypatch.setenv(f"SLURM_{name}", value)
        ports.add(int(slurm.Step.here().meeting_point.rpartition(":")[2]))
    assert len(ports) == 4 and all(10_000 <= port < 30_000 for port in ports)


def test_what_is_given_wins(step, monkeypatch):
    own = TWO.replace(nnodes=2, node_rank=0, dist_url="host0:1")
    assert slurm.on_this_machine(own) == own
    given = slurm.on_this_machine(TWO.replace(dist_url="ib0:29400"))
    assert (given.nnodes, given.node_rank, given.dist_url) == (2, 1, "ib0:29400")
    assert slurm.on_this_machine(TrainConfig()) == TrainConfig(), "one card: a training of its own on each node"

    seen = []
    monkeypatch.setattr(launch, "launch_as_said", lambda config: seen.append(config.nnodes) or sys.exit(0))
    for words in ([], ["--nnodes", "1"]):
        with pytest.raises(SystemExit):
            fit.main(["--device_num", "4", *words])
    assert seen == [2, 1]


def test_outside_of_srun_nothing_is_taken_over(step, monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_NODES")  # as in the batch script
    assert slurm.on_this_machine(TWO) == TWO and slurm.own_address() is None
    assert slurm.describe(TWO) == (
        "slurm: this job has 2 machines, but only this one trains; begin the command with srun"
    )
    monkeypatch.delenv("SLURM_JOB_ID")
    assert slurm.describe(TWO) == ""


@pytest.mark.parametrize(
    ("variables", "changes", "message"),
    [
        (
            {"SLURM_STEP_NUM_TASKS": "4"},
            {},
            "^SLURM_STEP_NUM_TASKS=4 on 2 nodes: one task a node is needed, .* give srun --ntasks-per-node=1, or ",
        ),
        ({}, {"nnodes": 3}, "^nnodes=3: this step of Slurm has 2 nodes; leave nnodes out, or give srun --nodes=3$"),
    ],
)
def test_steps_that_do_not_fit(step, monkeypatch, variables, changes, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        slurm.on_this_machine(TWO.replace(**changes))


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("n[3-4]", "n3"),
        ("gpu[001-004,9],login2", "gpu001"),
        ("a,b", "a"),
        ("r[1-2]n[05,7]-ib,x", "r1n05-ib"),
        ("n", "n"),
    ],
)
def test_the_first_of_the_nodes(names, first):
    assert slurm.first_name(names) == first


def test_without_scontrol_the_nodes_own_name_has_to_do(step, outside):
    (outside / "scontrol").unlink()
    assert slurm.on_this_machine(TWO).dist_url == "n3:10012"


def test_a_run_goes_on_where_it_is_not_where_it_was_begun():
    begun = TrainConfig(device_num=4, nnodes=2, node_rank=1, dist_url="a:1", lr=0.2)
    now = begun.continued(TrainConfig())
    assert (now.nnodes, now.node_rank, now.dist_url, now.lr) == (1, 0, "", 0.2)


def test_torchrun_heeds_the_first_request_alone():
    heard = []
    heed = agent.heed_once(lambda number, frame: heard.append(number))
    for number in (15, 15, 2):
        heed(number, None)
    assert heard == [15, 2]


# -- the batch script ---------------------------------------------------------------------------------------------


README = PAGE.read_text(encoding="utf-8")
SUBMIT = re.search(r"```\nattnet submit (.*)\n", README)[1]
SCRIPT = re.search(r"(#!/bin/bash\n.*?)```", README, flags=re.DOTALL)[1]


def test_the_readme_shows_what_is_submitted(capsys):
    assert main(["--dry_run", *shlex.split(SUBMIT)]) == 0
    assert capsys.readouterr().out.replace(f"{sys.executable} -m attnet", "attnet").strip() == SCRIPT.strip()


def test_a_script_for_cores_and_for_a_notebook():
    book = "notebooks/train_8p.ipynb"
    job = Job({"lr": "0.1"}, nodes=2, gpus_per_node=4, cores=16, partition="a", more=["--account=b"], notebook=book)
    lines = job.script.splitlines()
    assert (
        "#SBATCH --job-name=attnet --nodes=2 --ntasks-per-node=1 --gpus-per-node=4 --cpus-per-task=16 --partition=a"
        in lines
    )
    assert "#SBATCH --account=b" in lines and "--exclusive" not in job.script
    (srun,) = (shlex.split(line) for line in lines if line.startswith("srun"))
    assert srun[:4] == ["srun", "--cpu-bind=none", "--cpus-per-task=16", "sh"]
    runs = repository_root() / "runs"
    assert srun[5] == (
        f"exec {sys.executable} -m papermill --engine attnet {repository_root() / book} "
        f'{runs}/train_8p-$SLURM_JOB_ID-$SLURM_NODEID.ipynb "$@"'
    )
    given = dict(zip(srun[8::3], srun[9::3], strict=True))
    assert given == {"device_num": "8", "output_dir": "runs/job-$SLURM_JOB_ID", "resume": "auto", "lr": "0.1"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--nodes 2 --device_num 3", "device_num=3: 2 machines cannot share them evenly; give --gpus_per_node, or as"),
        ("--nodes 2", "device_num=1: 2 machines cannot share them evenly; give --gpus_per_node, or as"),
        ("--nodes 2 --gpus_per_node 4 --device_num 4", "device_num=4: 2 x 4 cards are asked for"),
        ("--nnodes 2", "nnodes=2: comes from Slurm on each machine; give --nodes alone"),
        ("--notebook none.ipynb", "notebook='none.ipynb': no such file"),
        ("--total_epoch 2", "unknown parameter 'total_epoch': did you mean 'total_epochs'?"),
        ("--lr -1", "lr='-1'"),
        ("", "sbatch: no such command here; submit from a machine of the cluster that has it (a login node)"),
    ],
)
def test_a_job_that_cannot_be_submitted_is_a_sentence(words, message, capsys):
    assert main(shlex.split(words)) == 2
    assert capsys.readouterr().err.startswith(f"attnet: {message}")


def test_what_sbatch_says(outside, tmp_path, capsys):
    put(outside, "sbatch", 'echo "sbatch: error: invalid partition" >&2; exit 1')
    words = ["--partition", "none", "--output_dir", str(tmp_path / "shared/run")]
    assert main(words) == 2
    assert capsys.readouterr().err == "attnet: sbatch refused the job: sbatch: error: invalid partition\n"

    put(outside, "sbatch", f'/bin/cat > {tmp_path}/taken; echo "7;cluster"')
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith((tmp_path / "taken").read_text()) and "--partition=none" in out
    assert (
        f"job 7 is submitted: it trains into {tmp_path}/shared/run, and its words are in {tmp_path}/shared/slurm-7"
        in out
    )
    assert f"scancel 7; go on then: the same command with --output_dir {tmp_path}/shared/run" in out
    assert (tmp_path / "shared").is_dir(), "else Slurm could not write the log, and would not say so"
