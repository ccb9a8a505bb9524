"""`attnet submit`: a training as a Slurm job. The batch script is shown, then handed to sbatch.

attnet submit --nodes 2 --gpus_per_node 8 --time 8:00:00 --output_dir /shared/run --data_path /shared/cifar10

A person can read the script, paste it and change it. (submitit, which submits Python functions, would put a pickle and
a wrapper of its own in the place of the command, ask for SIGUSR2 and requeue by itself.)
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnet.base.errors import AttnetError, ConfigError, answer, in_sentences, say
from attnet.base.files.outputs import writing
from attnet.base.files.paths import relative_to_root, resolve_path
from attnet.base.processes import environment
from attnet.engine.parameters import TrainConfig

OWN = "runs/job-$SLURM_JOB_ID"  # the run folder of a job that is given none: the same when the job goes on
# Slurm sends the signal to the steps of a job, not to its script, so that the script outlives the training.
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=attnet --nodes={nodes} --ntasks-per-node=1 {asked}
#SBATCH --signal=TERM@60 --requeue --open-mode=append --output={log}
{more}
# A task a machine, which starts a process a card. Which machine it is, and where all meet, comes from Slurm.
srun --cpu-bind=none {command}
status=$?
# 143: asked to stop before the time was up, and saved: back to the queue, which ends this script, as scancel does.
if [ $status -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID" && sleep 60; fi
exit $status
"""


@dataclass(frozen=True)
class Job:
    """What Slurm is asked for, and the training that is to run there.

    `given`: the parameters of the training, as text. `cores`: of a machine that is shared with other jobs; 0: whole
    machines. `more`: further options of sbatch. `notebook`: trains in its place, executed on each machine.
    """

    given: Mapping[str, str]
    nodes: int = 1
    gpus_per_node: int = 0
    cores: int = 0
    time: str = ""
    partition: str = ""
    more: Sequence[str] = ()
    notebook: str = ""

    @property
    def parameters(self) -> dict[str, str]:
        """`given`, and what follows from the rest: cards, run folder, going on where there is something to go on with.

        Raises:
            ConfigError: machines and cards that do not fit together; what is Slurm's to say.
        """
        for name in ("nnodes", "node_rank", "dist_url"):
            if name in self.given:
                raise ConfigError(f"{name}={self.given[name]}: comes from Slurm on each machine; give --nodes alone")
        asked, cards = self.nodes * self.gpus_per_node, TrainConfig(**self.given).device_num
        if "device_num" not in self.given:
            cards = asked or cards
        if cards % self.nodes:
            raise ConfigError(
                f"device_num={cards}: {self.nodes} machines cannot share them evenly; give --gpus_per_node, or as "
                "device_num a multiple of nodes"
            )
        if asked and cards != asked:
            raise ConfigError(
                f"device_num={cards}: {self.nodes} x {self.gpus_per_node} cards are asked for (nodes, gpus_per_node); "
                "leave device_num out"
            )
        return {"device_num": str(cards), "output_dir": OWN, "resume": "auto"} | dict(self.given)

    @property
    def log(self) -> Path:
        """Where the job's words go, beside the run folder; %j is the job's number."""
        return resolve_path(self.given.get("output_dir") or "runs/job").parent / "slurm-%j.out"

    @property
    def command(self) -> str:
        """What srun starts on each machine."""
        if not self.notebook:
            flags = [word for name, value in self.parameters.items() for word in (f"--{name}", value)]
            return shlex.join([sys.executable, "-m", "attnet", "train", *flags])
        book = resolve_path(self.notebook)
        if not book.is_file():
            raise ConfigError(f"notebook={self.notebook!r}: no such file; give one of notebooks/, or yours")
        words = shlex.join([sys.executable, "-m", "papermill", "--engine", "attnet", str(book)])
        executed = f"{shlex.quote(str(self.log.with_name(book.stem)))}-$SLURM_JOB_ID-$SLURM_NODEID.ipynb"
        flags = [word for name, value in self.parameters.items() for word in ("-p", name, value)]
        # `exec`: a shell that ends at the signal would be the end of the task.
        inner = shlex.quote(f'exec {words} {executed} "$@"')
        return f"sh -c {inner} - {shlex.join(flags)}"

    @property
    def script(self) -> str:
        """The batch script."""
        asked = [f"--gpus-per-node={self.gpus_per_node}"] * bool(self.gpus_per_node)
        asked += [f"--cpus-per-task={self.cores}"] if self.cores else ["--exclusive"]
        asked += [f"--time={self.time}"] * bool(self.time) + [f"--partition={self.partition}"] * bool(self.partition)
        # srun does not take the number of cores over from sbatch.
        command = f"--cpus-per-task={self.cores} {self.command}" if self.cores else self.command
        more = "".join(f"#SBATCH {option}\n" for option in self.more)
        words = {"nodes": self.nodes, "asked": " ".join(asked), "log": shlex.quote(str(self.log)), "command": command}
        return SCRIPT.replace("{more}\n", more).format(**words)

    def submit(self) -> str:
        """Hand the script to sbatch; the job's number.

        Raises:
            ConfigError: no sbatch here, or the log cannot be written. AttnetError: what sbatch says against it.
        """
        with writing(f"output_dir={self.log.parent}"):
            self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                ["sbatch", "--parsable"],
                input=self.script,
                env=environment(),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
        except OSError:
            raise ConfigError(
                "sbatch: no such command here; submit from a machine of the cluster that has it (a login node), or "
                "keep the script: attnet submit --dry_run … > job.sh"
            ) from None
        if done.returncode:
            raise AttnetError(f"sbatch refused the job: {' '.join(done.stderr.split()) or 'it does not say why'}")
        return done.stdout.strip().partition(";")[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnet submit",
        description="Train as a Slurm job, on one machine or several. The batch script is shown, then submitted. A "
        "minute before the time limit the training saves itself and goes back to the queue, as after a machine's "
        "failure; the same command with the same output_dir goes on after scancel.",
        epilog="Every parameter of attnet train is a flag as well. Exit status 2 for a mistake in what was given.",
        allow_abbrev=False,
    )
    parser.add_argument("--nodes", type=_count, default=1, help="machines (default 1)")
    parser.add_argument(
        "--gpus_per_node", type=_count, default=0, help="cards of each; their product with nodes is device_num"
    )
    parser.add_argument(
        "--cores", type=_count, default=0, help="cores of each, shared with other jobs; not given: whole machines"
    )
    parser.add_argument("--time", default="", help="how long a job may last, as 8:00:00; not given: the partition's")
    parser.add_argument("--partition", default="", help="where; not given: the cluster's own")
    parser.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="a further option of sbatch, with its dashes: --sbatch=--account=vision; may be given several times",
    )
    parser.add_argument(
        "--notebook", default="", help="execute this notebook with papermill on each machine instead of attnet train"
    )
    parser.add_argument("--dry_run", action="store_true", help="show the script alone; submit nothing")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 is needed")
    return int(text)


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, or 2 for a mistake in what was given."""
    options, words = _parser().parse_known_args(arguments)
    given = TrainConfig.parse_given(words, prog="attnet submit")
    asked = {name: value for name, value in vars(options).items() if name not in ("sbatch", "dry_run")}
    job = Job(given, more=options.sbatch, **asked)
    if options.dry_run:
        answer(job.script)
        return 0
    say(job.script)
    number = job.submit()
    folder = job.parameters["output_dir"].replace("$SLURM_JOB_ID", number)
    log = relative_to_root(job.log).replace("%j", number)
    say(f"job {number} is submitted: it trains into {folder}, and its words are in {log}")
    say(f"stop and save it: scancel {number}; go on then: the same command with --output_dir {folder}")
    return 0
