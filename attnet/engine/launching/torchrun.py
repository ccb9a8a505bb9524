"""torchrun: a process a card on this machine, or on each of several that meet at machine 0."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import ClassVar

from attnet.base.errors import ConfigError
from attnet.base.files.paths import relative_to_root
from attnet.engine.distributed import of_another_job
from attnet.engine.launching.slurm import own_address
from attnet.engine.parameters import TrainConfig

PATIENCE = 600  # seconds that machines wait for machine 0, as ranks for each other


class Torchrun:
    """torchrun on this machine, `device_num` / `nnodes` processes; on each machine of several the same."""

    # With several machines, ranks that are brought back meet in a new store, free of their dead predecessors'
    # addresses.
    FRESH_STORE: ClassVar[dict[str, str]] = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @property
    def variables(self) -> dict[str, str]:
        """What is set besides this process's environment."""
        return self.FRESH_STORE if self.config.nnodes > 1 else {}

    def arguments(self, folder: Path) -> list[str]:
        """What follows `torchrun` on the command line for this run folder.

        Raises:
            ConfigError: cards that do not divide among the machines, or no meeting point for several machines.
        """
        config = self.config
        if config.device_num % config.nnodes:
            raise ConfigError(
                f"device_num={config.device_num}: {config.nnodes} machines cannot share them evenly; "
                "give a multiple of nnodes"
            )
        if config.node_rank >= config.nnodes:
            raise ConfigError(f"node_rank={config.node_rank}: machines are numbered 0 to {config.nnodes - 1} (nnodes)")
        where = ["--standalone", "--local_addr=127.0.0.1"]  # a machine may be unable to find itself by its name
        if config.nnodes > 1:
            where = [f"--nnodes={config.nnodes}", f"--node_rank={config.node_rank}", "--rdzv_backend=c10d"]
            where += [f"--rdzv_endpoint={self.endpoint}", "--rdzv_id=attnet"]
            # Else torchrun takes machine 0 for another one where its name does not lead to the address; and machines
            # that have to wait for it give up after a minute.
            where += [f"--rdzv_conf=is_host={int(config.node_rank == 0)},read_timeout={PATIENCE}"]
            where += [f"--local_addr={mine}"] if (mine := own_address()) else []
        each = config.device_num // config.nnodes
        flags = config.replace(output_dir=relative_to_root(folder), resume="auto", progress="auto").flags()
        restarts = f"--max_restarts={config.max_restarts}"
        ours = ["--"] if "--log" in flags else []  # else torchrun takes it for an option of its own, cut short
        return [*where, f"--nproc_per_node={each}", restarts, "-m", *ours, "attnet.train", *flags]

    @property
    def endpoint(self) -> str:
        """HOST:PORT where several machines meet; ConfigError for anything else."""
        given = self.config.dist_url.removeprefix("tcp://")
        if not given:
            raise ConfigError(f"nnodes={self.config.nnodes}: give dist_url=HOST:PORT of machine 0, where all meet")
        host, _, port = given.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ConfigError(f"dist_url={self.config.dist_url!r}: HOST:PORT is needed, as HOST0:29400")
        return given

    def check_port(self) -> None:
        """ConfigError where machine 0, which this one is, has given the meeting point's port to another program."""
        if self.config.nnodes == 1 or self.config.node_rank:
            return
        port = int(self.endpoint.rpartition(":")[2])
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("", port))
        except OSError as error:
            raise ConfigError(
                f"dist_url={self.config.dist_url!r}: port {port} cannot be had on this machine ({error.strerror}); "
                "give another one on every machine"
            ) from None

    def words(self, folder: Path) -> list[str]:
        """What follows `python`."""
        return ["-m", "attnet.engine.launching.agent", *self.arguments(folder)]

    def shown(self, folder: Path) -> str:
        """The plain command, to be pasted into a shell."""
        unset = "".join(f"-u {name} " for name in of_another_job())
        prefix = "".join(f"{name}={value} " for name, value in self.variables.items())
        return f"{f'env {unset}' if unset else ''}{prefix}torchrun {shlex.join(self.arguments(folder))}"
