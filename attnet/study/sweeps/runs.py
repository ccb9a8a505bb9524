"""A run of a sweep: its folder, its process, started or resumed; the hash that tells equal runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from attnet.base import device as devices
from attnet.base.errors import ConfigError
from attnet.base.files.opening import append_to
from attnet.base.files.outputs import writing
from attnet.base.files.paths import resolve_path
from attnet.base.host import usable_cores
from attnet.base.json_files import read_object
from attnet.base.notebooks import GATHERS, parameter_names, trains
from attnet.base.processes import how_it_ended, start
from attnet.engine.holding.lease import VARIABLE, Lease
from attnet.engine.holding.lock import user_of
from attnet.engine.parameters import TrainConfig
from attnet.engine.recipes import BY_LENGTH, recipe_in
from attnet.engine.run_folder import CONFIG, is_finished

LOG, NOTEBOOK = "output.log", "notebook.ipynb"  # what a run of a sweep has in its folder besides


def content_hash(config: TrainConfig) -> str:
    """Eight hexadecimal digits of the parameters that decide a run's result, its seed apart.

    A recipe, or the way of a short mode, counts with the values it stands for, so the hash changes when these are
    changed; what is as in recipe `seed` does not count, so the hash stays when `TrainConfig` gets a new parameter. What
    a short training would have otherwise counts where it is given, be it as in the recipe.
    """
    fields = config.fields()
    usual = {name: spec.default for name, spec in fields.items()} | config.recipe_values("seed")
    recipe = recipe_in(config, config.mode)
    given = {name: value for name, value in config.to_dict().items() if value is not None}
    left_out = {*config.named(decides="never"), *config.named(sweep="seeds")}
    decisive = {n: value for n, value in (recipe | given).items() if n not in left_out and value != usual[n]}
    decisive |= {f"{name}, given": recipe[name] for name in BY_LENGTH if given.get(name) == recipe[name]}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]


def check_notebook(notebook: str | Path) -> list[str]:
    """The names in the parameters cell of a notebook that trains.

    Raises:
        ConfigError: no such file, no notebook, or one that does not take the parameters of a run.
    """
    path = resolve_path(notebook)
    if not path.is_file():
        raise ConfigError(f"notebook={path}: no such file; notebooks/train_1p.ipynb is one")
    try:
        cells = read_object(path)["cells"]
        names = parameter_names(cells)
    except (AttributeError, ValueError, KeyError, TypeError, SyntaxError) as error:
        raise ConfigError(f"notebook={path}: not a notebook ({error})") from None
    if names is None or not trains(cells):
        raise ConfigError(
            f"notebook={path}: needs one cell tagged `parameters`, and {GATHERS}globals()) to take them; "
            "notebooks/train_1p.ipynb shows how"
        )
    return names


@dataclass(frozen=True)
class Run:
    """One configuration with one seed; `config.output_dir` is the folder that belongs to it alone.

    Its process is `attnet train`, or `notebook` executed, which is then kept in the folder.
    """

    name: str
    config: TrainConfig
    notebook: str = ""

    @property
    def folder(self) -> Path:
        return resolve_path(self.config.output_dir)

    def __str__(self) -> str:
        return f"{self.name}, seed {self.config.seed}"

    @property
    def state(self) -> str:
        """ "finished", "begun" (the next start goes on there) or "to do"."""
        if is_finished(self.folder):
            return "finished"
        return "begun" if (self.folder / CONFIG).exists() else "to do"

    def is_in_use(self) -> bool:
        """Whether another process trains here, such as one that still ends after who started it was killed."""
        return user_of(self.folder) is not None

    def start(self, slot: int = 0, parallel: int = 1, lease: Lease | None = None) -> subprocess.Popen:
        """Begin the run, or go on where it was stopped; on the accelerator `slot` cards after `device_id`.

        Cards are counted round where fewer are here: runs then share a card.

        Of `parallel` runs at once each gets its share of the processor's cores, unless OMP_NUM_THREADS is set. Under a
        lease it writes only while that holds.
        """
        changes: dict[str, object] = {}
        device = devices.choose(self.config.device_type, self.config.device_id)
        if slot and device.is_accelerator:
            changes["device_id"] = (device.index + slot) % device.count()
        if self.state == "begun":
            changes["resume"] = self.config.output_dir
        threads = max(1, usable_cores() // parallel) if parallel > 1 else 0
        with writing(f"folder={self.folder}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with append_to(self.folder / LOG) as log:
                variables = {} if lease is None else {VARIABLE: str(lease.marker)}
                slurm = [name for name in os.environ if name.startswith("SLURM_")]  # a run is this machine's alone
                words = self._words(self.config.replace(**changes))
                return start(words, log, variables, without=slurm, threads=threads)

    def _words(self, config: TrainConfig) -> list[str]:
        """What follows `python`. A notebook gets every parameter of its parameters cell, whatever its defaults there,
        and those that are not at TrainConfig's."""
        if not self.notebook:
            return ["-m", "attnet.train", *config.flags()]
        names = {*check_notebook(self.notebook), *config.given()}
        given = {name: value for name, value in config.to_dict().items() if name in names}
        quiet = ["-k", "python3", "--no-progress-bar", "--log-level", "WARNING", "--stdout-file", "-"]
        paths = [str(resolve_path(self.notebook)), str(self.folder / NOTEBOOK)]
        return ["-m", "papermill", "--engine", "attnet", *paths, *quiet, "-y", json.dumps(given)]

    def failure(self, status: int) -> str:
        """Why its process failed: how it ended, and the last line of its log."""
        text = (self.folder / LOG).read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return f"{how_it_ended(status)}; {lines[-1].strip() if lines else 'it wrote nothing'}"
