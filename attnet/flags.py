"""The parameters of `TrainConfig` as command-line flags, and as the table of the README."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from collections.abc import Sequence

from attnet.config import TrainConfig, field_types, parameter_fields
from attnet.errors import ConfigError
from attnet.presets import LENGTHS, MODES, RECIPES


def preset_text(name: str) -> str:
    """What None means for a parameter: its value per mode or recipe; "" where nothing is preset.

    Recipes are shown where they differ from the first one, and the value alone where none does.
    """
    modes = {mode: table[name] for mode, table in MODES.items() if name in table}
    modes |= {f"full with {recipe}": table[name] for recipe, table in LENGTHS.items() if name in table}
    recipes = {recipe: table[name] for recipe, table in RECIPES.items() if name in table}
    first = next(iter(recipes), "")
    different = {recipe: value for recipe, value in recipes.items() if recipe == first or value != recipes[first]}
    if len(different) == 1:
        return f"{recipes[first]}"
    return ", ".join(f"{preset}: {value}" for preset, value in (modes | different).items())


def default_text(spec: dataclasses.Field) -> str:
    """The default of a parameter as shown in help texts and the README's table."""
    if spec.default is None:
        return preset_text(spec.name) or "None"
    return repr(spec.default) if isinstance(spec.default, str) else f"{spec.default}"


def parameter_table() -> str:
    """All parameters as the Markdown table of the README."""
    rows = [
        f"| `{name}` | {' or '.join(kind.__name__ for kind in field_types(spec))} | {default_text(spec)} | "
        f"{spec.metadata['help']} |"
        for name, spec in parameter_fields().items()
    ]
    return "\n".join(["| parameter | type | default | meaning |", "|---|---|---|---|", *rows])


class _WholeWords(argparse.HelpFormatter):
    """Paths are not broken at their hyphens, so that they can be copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def parse_arguments(arguments: Sequence[str] | None = None) -> TrainConfig:
    """A TrainConfig from command-line flags, one per parameter; `--help` explains each."""
    return TrainConfig(**given_parameters(arguments))


def given_parameters(arguments: Sequence[str] | None = None) -> dict[str, str]:
    """Name -> value, as text, of the parameters among command-line flags."""
    parser = argparse.ArgumentParser(
        prog="python -m attnet.train",
        description="Train a residual attention network.",
        allow_abbrev=False,
        formatter_class=_WholeWords,
    )
    for name, spec in parameter_fields().items():
        kinds = "|".join(kind.__name__ for kind in field_types(spec))
        text = f"{spec.metadata['help']} (default {default_text(spec)})".replace("%", "%%")
        parser.add_argument(f"--{name}", metavar=kinds, default=argparse.SUPPRESS, help=text)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        flag = unknown[0].split("=")[0].lstrip("-")
        if flag not in parameter_fields():
            TrainConfig(**{flag: None})  # raises, with the nearest known name
        raise ConfigError(f"unexpected argument {unknown[0]!r}; every parameter is --name value, see --help")
    return vars(known)


def to_flags(config: TrainConfig) -> list[str]:
    """The command-line words that give this configuration: every parameter that is not at its default."""
    given = {name: (getattr(config, name), spec.default) for name, spec in parameter_fields().items()}
    return [word for name, (value, default) in given.items() if value != default for word in (f"--{name}", str(value))]
