"""A Slurm cluster of two nodes on this machine, for tests: munged, slurmctld and two slurmd, all below one folder.

    python tests/engine/slurm_cluster.py sbatch --wait job.sh   # a command on a cluster that lives as long as it does

Nodes are called n0 and n1. These names do not resolve, as on many a cluster; each node has a core. A signal reaches
every process of a step, as with cgroups.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

NODES = ("n0", "n1")
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "scontrol", "squeue")
_NODE = "ATTNET_TEST_NODE"  # variable by which what a node's slurmd starts is known
CONFIGURATION = """
ClusterName=attnet
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdTimeout=10
KillWait=20
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=100000
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no cluster can be started here; "" where it can."""
    without = [name for name in PROGRAMS if shutil.which(name) is None]
    if without:
        return f"needs {', '.join(without)} (Debian: slurm-wlm and munge)"
    return "" if os.geteuid() == 0 else "needs root, as which slurmd runs"


class Cluster:
    """The cluster's processes, by name, and the variables by which commands find it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, {}
        self.cores = sorted(os.sched_getaffinity(0))[: len(NODES)]
        others = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH"))}
        self.variables = others | {"SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start everything and wait until both nodes take jobs."""
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(folder=self.folder, host=host, ports=_free_ports(3))
        )
        munge = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
        self._run("munged", "munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *munge)
        self.wait(lambda: (self.folder / "munge.socket").exists())
        self._run("slurmctld", "slurmctld", "-D", "-i")
        for node in NODES:
            self.start_node(node)
        self.wait(lambda: self.idle == len(NODES))

    @property
    def idle(self) -> int:
        """How many nodes are up and free."""
        return int(self.command("sinfo", "--noheader", "--states=idle", "--format=%D").strip() or 0)

    def start_node(self, node: str) -> None:
        """slurmd of one node, on its own core."""
        core = self.cores[NODES.index(node) % len(self.cores)]
        self._run(node, "taskset", "-c", str(core), "slurmd", "-D", "-N", node, **{_NODE: node})

    def command(self, *words: str) -> str:
        """What a command of Slurm's says."""
        done = subprocess.run(words, env=self.variables, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def kill_node(self, node: str) -> None:
        """SIGKILL everything of a node, its slurmd first, as when its power fails."""
        slurmd = self.processes.pop(node)
        slurmd.kill()
        slurmd.wait()
        for process, variables in self.left():
            if node in (variables.get("SLURMD_NODENAME"), variables.get(_NODE)):
                process.kill()

    def stop(self) -> None:
        """End all jobs, then every daemon, by its process id, and what nodes that were killed have left."""
        with contextlib.suppress(subprocess.TimeoutExpired, TimeoutError):
            self.command("scancel", "--user=root")
            self.wait(lambda: not self.command("squeue", "-h").strip(), seconds=40)
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for process, _ in self.left():
            process.kill()

    def wait(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Until `condition` holds; TimeoutError with the cluster's own last words."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = [file.read_text(errors="replace")[-1500:] for file in sorted(self.folder.glob("*.log"))]
                raise TimeoutError("\n\n".join(["nothing happened; the cluster's words:", *logs]))
            time.sleep(0.1)

    def left(self) -> Iterator[tuple[psutil.Process, dict[str, str]]]:
        """Every process of this cluster, with its variables."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                if variables.get("SLURM_CONF") == self.variables["SLURM_CONF"]:
                    yield process, variables

    def _run(self, name: str, *words: str, **variables: str) -> None:
        with open(self.folder / f"{name}.out", "a") as log:
            self.processes[name] = subprocess.Popen(
                words, env=self.variables | variables, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder
            )


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster in a temporary folder, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        one = Cluster(Path(folder))
        try:
            one.start()
            yield one
        finally:
            one.stop()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    with cluster() as here:
        sys.exit(subprocess.run(sys.argv[1:] or ["sinfo"], env=here.variables, check=False).returncode)
