"""Several cards: who am I, how do we talk, when do we stop together. The variables are torchrun's.

One process drives one card. With one process everything here is a no-op, so the engine is written once.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from attnet.base import device as devices
from attnet.base.device import Device
from attnet.base.errors import AttnetError, ConfigError, say
from attnet.base.files.opening import append_to
from attnet.base.processes import is_alive, variable_of
from attnet.base.words import duration
from attnet.engine.parameters import TrainConfig

# Variable by which `attnet.launch` names its own process to the ranks, so that they end when it is gone.
LAUNCHER = "ATTNET_LAUNCHER_PID"
# Variable by which it says where each rank's output goes.
LOG_DIR = "ATTNET_LOG_DIR"
_WATCH_SECONDS = 0.5
# Variables by which torchrun tells a process who it is, with what they say of one that is alone.
_ALONE = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
# Those that torchrun sets besides, or takes its own options from (PET_...): those of another job mislead it.
_OTHERS = ("GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
# Seconds after which waiting for other ranks is spoken of, and between such words.
PATIENCE, AGAIN = 15.0, 60.0


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, and `local_rank` of `local_size` on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> World:
        """As torchrun says; one process alone without it.

        Raises:
            ConfigError: only some of its variables are set, or to what cannot be.
        """
        found = {name: value for name in _ALONE if (value := os.environ.get(name, "").strip())}
        if all(_ALONE[name] == value for name, value in found.items()):
            return cls()
        if len(found) == len(_ALONE) and all(value.isdecimal() for value in found.values()):
            world = cls(*map(int, found.values()))
            if world.rank < world.size and world.local_rank < world.local_size <= world.size:
                return world
        shown = " ".join(f"{name}={value}" for name, value in found.items())
        raise ConfigError(
            f"{shown}: left in the environment by another job, or a part of what torchrun sets, which is "
            f"{', '.join(_ALONE)}; `unset {' '.join(found)}`, or start with torchrun or attnet train --device_num N"
        )

    def fit_to(self, config: TrainConfig) -> TrainConfig:
        """`config` as this process has to see it: as many cards as there are processes, its own card.

        Raises:
            ConfigError: several cards asked for in a single process.
        """
        if self.size == 1:
            if config.device_num > 1:
                raise ConfigError(
                    f"device_num={config.device_num}: one process drives one card; start that many with "
                    "attnet.launch(config), or attnet train, or torchrun"
                )
            return config
        mine = self.local_rank if devices.choose(config.device_type).is_numbered else 0
        return config.replace(device_num=self.size, device_id=mine)

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files and speaks."""
        return self.rank == 0

    @contextlib.contextmanager
    def joined(self, device: Device, timeout_minutes: float = 10) -> Iterator[None]:
        """Meet the other ranks, and take leave in order whatever happens.

        Raises:
            AttnetError: they did not meet; where, and what may be the cause.
        """
        if self.size == 1:
            yield
            return
        _watch_parents()
        share_cores(self.local_rank, self.local_size)
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        others = f"the other {self.size - 1} of {self.size} ranks at {place} (MASTER_ADDR, MASTER_PORT)"
        stale = "" if is_kept_by_torchrun() else f"; if this is to be one process: `unset {' '.join(_ALONE)}`"
        with spoken_of(lambda waited: f"rank {self.rank} has waited {duration(waited)} for {others}{stale}"):
            try:
                self._meet(device, datetime.timedelta(minutes=timeout_minutes))
            except (RuntimeError, ValueError, OSError, KeyError) as error:
                why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                taken = "another program has that port, give all ranks another one; " * ("EADDRINUSE" in str(error))
                raise AttnetError(f"rank {self.rank} did not meet {others}: {taken}{why}{stale}") from error
        try:
            yield
        finally:
            dist.destroy_process_group()

    def _meet(self, device: Device, timeout: datetime.timedelta) -> None:
        options = device.group_options
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            # torchrun keeps one store over its restarts: under the same keys a new rank would find dead addresses.
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = dist.TCPStore(address, port, self.size, is_master=False, timeout=timeout)
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            options = options | {"store": dist.PrefixStore(f"attnet/{attempt}", store), "rank": self.rank}
            options["world_size"] = self.size
        dist.init_process_group(device.backend, timeout=timeout, **options)

    def wrap(self, model: nn.Module, device: Device, bucket_views: bool = True) -> nn.Module:
        """`model` with gradients averaged over the ranks; batch norm stays per card.

        With `bucket_views` gradients lie in the buckets that are exchanged, which saves a copy.
        """
        if self.size == 1:
            return model
        cards = [device.index] if device.is_numbered else None
        # torch 2.13 renames the switch that leaves batch norm's statistics to each card.
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        per_card = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
        return DistributedDataParallel(model, device_ids=cards, **per_card, gradient_as_bucket_view=bucket_views)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of every rank's `value`, on every rank."""
        total = value.clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def gather(self, value: object) -> list:
        """Every rank's `value` (anything that pickles), by rank, on every rank."""
        everything: list = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(everything, value)
        return everything

    def broadcast(self, value: object) -> object:
        """Rank 0's `value` on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank rank 0's values, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


class Requests:
    """What one rank wants all ranks to do after the same step: stop (a signal came) or save (it is time).

    Each step ends in an exchange of gradients, for which a device waits, but not the process that feeds it. So a rank
    that looks after step k has waited until its device was done with step k - 1 (`Trainer.stop_or_save`), in which
    every rank took part: when one posts after step j, the others have looked after step j + 1 at most. It posts "after
    step j + 2", and nobody looks after that one before the post is there, so all see it.
    """

    AHEAD = 2  # steps

    def __init__(self, world: World) -> None:
        self.world = world
        self.posts: dict[str, tuple[int, int]] = {}  # kind -> (step, detail), with one process
        self.store = dist.distributed_c10d._get_default_store() if world.size > 1 else None
        self.turn = {"stop": 0, "save": 0}

    def post(self, kind: str, step: int, detail: int = 0) -> None:
        """Ask for `kind` after `step` (counted over the whole run); the first post wins."""
        if self.store is None:
            self.posts.setdefault(kind, (step, detail))
        else:
            self.store.compare_set(self._key(kind), "", f"{step} {detail}")

    def due(self, kind: str, step: int) -> int | None:
        """The detail posted for this or an earlier step; None when nothing is due. A due request is used up."""
        if self.store is None:
            post = self.posts.get(kind)
        else:
            key = self._key(kind)
            post = tuple(map(int, self.store.get(key).split())) if self.store.check([key]) else None
        if post is None or step < post[0]:
            return None
        self.posts.pop(kind, None)
        self.turn[kind] += 1
        return post[1]

    def _key(self, kind: str) -> str:
        return f"attnet/{kind}/{self.turn[kind]}"


def of_another_job() -> list[str]:
    """Variables that are set here and would mislead a job that is started from here."""
    return sorted(name for name in os.environ if name in _ALONE or name in _OTHERS or name.startswith("PET_"))


@contextlib.contextmanager
def spoken_of(words: Callable[[float], str]) -> Iterator[threading.Event]:
    """Say on stderr what is waited for where it takes long; `words` gets the seconds so far.

    Setting the event, or leaving the context, ends it.
    """
    met, begun = threading.Event(), time.monotonic()

    def speak() -> None:
        pause = PATIENCE
        while not met.wait(pause):
            say(f"attnet: {words(time.monotonic() - begun)}", sys.stderr)
            pause = AGAIN

    threading.Thread(target=speak, name="attnet-speak", daemon=True).start()
    try:
        yield met
    finally:
        met.set()


def is_watched() -> bool:
    """Whether `attnet.launch` started this process as a rank and shows what it does."""
    return LOG_DIR in os.environ and "RANK" in os.environ


def redirect_output() -> None:
    """Send this rank's output to its own file when `attnet.launch` asks for it, whatever writes it."""
    if is_watched():
        path = os.path.join(os.environ[LOG_DIR], f"rank{os.environ['RANK']}.log")
        with append_to(path) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)


def share_cores(local_rank: int, local_size: int) -> None:
    """Give each rank of this machine its own even share of the cores, as the document's `taskset` does."""
    if not hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_size))
        return
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // local_size
    if share:
        os.sched_setaffinity(0, cores[local_rank * share : (local_rank + 1) * share])
    torch.set_num_threads(max(1, share))


def is_kept_by_torchrun() -> bool:
    """Whether torchrun started this process, and brings it back when it fails."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def _watch_parents() -> None:
    """End this process when torchrun, or the notebook that started it, is gone: no rank is left behind.

    With the notebook gone, torchrun is asked to stop first, so that the run is saved.
    """
    parent, launcher = os.getppid(), os.environ.get(LAUNCHER, "")
    # Torchrun may have died while this process was importing, and then the parent is whoever takes in orphans: process
    # 1, which nobody may ask to stop. Torchrun, if the launcher started it, has the launcher's variable.
    if launcher and (parent == 1 or (sys.platform == "linux" and variable_of(parent, LAUNCHER) != launcher)):
        _end_alone()

    def watch() -> None:
        asked = False
        while True:
            time.sleep(_WATCH_SECONDS)
            if os.getppid() != parent:
                _end_alone()
            if launcher and not asked and not is_alive(int(launcher)):
                asked = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(parent, 15)

    threading.Thread(target=watch, name="attnet-watch-parents", daemon=True).start()


def _end_alone() -> None:
    say("attnet: torchrun is gone; ending", sys.stderr)
    os._exit(1)
