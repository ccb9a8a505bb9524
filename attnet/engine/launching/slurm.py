"""What Slurm says of a job's machines: how many, which one this is, and where they meet.

srun starts a task on each machine of a job; `attnet train` in it finds the others by Slurm's variables, and starts the
processes of its own machine.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
from dataclasses import dataclass

from attnet.base.errors import ConfigError
from attnet.engine.parameters import TrainConfig

# Ports to meet at: above those of services, below those that Linux gives to connections (from 32768).
_FIRST_PORT, _PORTS = 10_000, 20_000
_ASKED = 30.0  # seconds that scontrol has for an answer


@dataclass(frozen=True)
class Step:
    """The job step, one call of srun, that this process is of."""

    job: int
    number: int
    restart: int  # how often the job was put into the queue again
    nodes: int
    node: int  # this one of them, counted from 0
    tasks: int
    names: str  # of the nodes, as Slurm writes them: n[0-1]
    name: str  # of this one

    @classmethod
    def here(cls) -> Step | None:
        """As srun's variables say; None outside of srun, as in a batch script itself."""
        numbers = {
            "job": os.environ.get("SLURM_JOB_ID", ""),
            "number": os.environ.get("SLURM_STEP_ID", ""),
            "restart": os.environ.get("SLURM_RESTART_COUNT", "0"),
            "nodes": os.environ.get("SLURM_STEP_NUM_NODES", ""),
            "node": os.environ.get("SLURM_NODEID", ""),
            "tasks": os.environ.get("SLURM_STEP_NUM_TASKS", ""),
        }
        if not all(value.isdecimal() for value in numbers.values()):
            return None
        names, name = os.environ.get("SLURM_STEP_NODELIST", ""), os.environ.get("SLURMD_NODENAME", "")
        return cls(**{key: int(value) for key, value in numbers.items()}, names=names, name=name)

    @property
    def meeting_point(self) -> str:
        """ADDRESS:PORT on machine 0, the same on every node.

        The port is made of the numbers of job, step and restart: two jobs that share a machine meet at different ones,
        and a job that goes on never meets what is left of itself.
        """
        port = _FIRST_PORT + (self.job + 997 * self.number + 7919 * self.restart) % _PORTS
        return f"{address(first_name(self.names))}:{port}"


def on_this_machine(config: TrainConfig) -> TrainConfig:
    """`config` with nnodes, node_rank and dist_url as Slurm says, where they are left open and srun started us.

    Raises:
        ConfigError: several tasks on a node, each of which would start all of its processes; another number of nodes
            than `nnodes`.
    """
    step = Step.here()
    is_said = config.nnodes > 1 and config.dist_url  # the user has machines of their own, whatever Slurm calls them
    if step is None or config.device_num == 1 or is_said:
        return config
    if step.tasks != step.nodes:
        raise ConfigError(
            f"SLURM_STEP_NUM_TASKS={step.tasks} on {step.nodes} nodes: one task a node is needed, which starts the "
            "processes of all its cards; give srun --ntasks-per-node=1, or attnet train --nnodes 1 where each task is "
            "to be a training of its own"
        )
    if config.nnodes not in (1, step.nodes):
        raise ConfigError(
            f"nnodes={config.nnodes}: this step of Slurm has {step.nodes} nodes; leave nnodes out, or give srun "
            f"--nodes={config.nnodes}"
        )
    if step.nodes == 1:
        return config
    return config.replace(
        nnodes=step.nodes, node_rank=config.node_rank or step.node, dist_url=config.dist_url or step.meeting_point
    )


def describe(config: TrainConfig) -> str:
    """Which job and machine this is, in a line; "" where Slurm has no part in it."""
    step = Step.here()
    if step is not None and config.nnodes > 1:
        return (
            f"slurm: job {step.job}, {step.nodes} machines ({step.names}) meet at {config.dist_url}; this is machine "
            f"{config.node_rank}, {step.name}"
        )
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    if step is None and config.nnodes == 1 and nodes != "1" and "SLURM_JOB_ID" in os.environ:
        return f"slurm: this job has {nodes} machines, but only this one trains; begin the command with srun"
    return ""


def first_name(names: str) -> str:
    """The first of the nodes that Slurm writes as `gpu[001-004,9],login2`: gpu001."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", names)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def own_address() -> str | None:
    """The address of this node; None outside of srun, where the machine's own name has to do."""
    step = Step.here()
    return address(step.name) if step is not None and step.name else None


@functools.cache
def address(node: str) -> str:
    """Where Slurm itself reaches a node, so that every other node can: its name need not resolve.

    Its name where scontrol does not say, as in a container without Slurm's commands.
    """
    try:
        words = ["scontrol", "--oneliner", "show", "node", node]
        done = subprocess.run(
            words, capture_output=True, encoding="utf-8", errors="replace", timeout=_ASKED, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return node
    found = re.search(r"\bNodeAddr=(\S+)", done.stdout)
    return found[1] if found else node
