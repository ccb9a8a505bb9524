"""Parameters as a class of fields, each with all that is true of it in its own entry; values from anywhere, checked.

    @parameters
    class Settings(Parameters):
        lr: float = parameter(default=0.1, help="learning rate", low=0)

`Settings(lr="0.2")` brings text from a command line, a notebook or JSON into the field's type. Type checkers and
editors see an ordinary keyword-only dataclass.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import textwrap
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from typing_extensions import Self, dataclass_transform

from attnet.base.errors import ConfigError, nearest
from attnet.base.facts import Facts, checked, facts
from attnet.base.json_files import read_object

_T = TypeVar("_T")


def parameter(*, default: Any, help: str, choices: Sequence[str] = (), **others: Any) -> Any:
    """A field of a class of `parameters`; `others` as the attributes of `Facts`. Type checkers want the names."""
    facts = Facts(help, choices=tuple(choices), **others)
    return dataclasses.field(default=default, metadata={"facts": facts})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(parameter,))
def parameters(cls: type[_T]) -> type[_T]:
    """A keyword-only frozen dataclass whose values are brought into their types and checked when it is created."""
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    assign = made.__init__

    @functools.wraps(assign)
    def create(self: Parameters, /, **given: object) -> None:
        known = made.fields()
        for name in given:
            if name not in known:
                raise ConfigError(f"unknown parameter {name!r}: {made.meant(name)}")
        assign(self, **{name: checked(known[name], made.kinds(name), value) for name, value in given.items()})
        self.check()

    # An inspector is to see the names, types and defaults of the fields, not `**given`.
    signature = inspect.signature(assign)
    shown = [signature.parameters[name] for name in ("self", *made.fields())]
    create.__signature__ = signature.replace(parameters=shown)
    made.__init__ = create
    return made


class Parameters:
    """Base of a class of `parameters`.

    Raises:
        ConfigError: naming the parameter, its value, the rule, and for an unknown name the one that was meant.
    """

    # Names that people know from elsewhere and that nothing here goes by -> why, and what to do instead.
    NOT_HERE: ClassVar[Mapping[tuple[str, ...], str]] = {}

    def __init__(self, /, **given: object) -> None: ...

    def check(self) -> None:
        """ConfigError where values contradict each other."""

    @classmethod
    def fields(cls) -> dict[str, dataclasses.Field]:
        """Name -> field: those of the class itself in order, then those that it inherits."""
        every = {spec.name: spec for spec in dataclasses.fields(cls)}
        own = [name for name in vars(cls).get("__annotations__", ()) if name in every]
        return {name: every[name] for name in (*own, *every)}

    @classmethod
    def kinds(cls, name: str) -> tuple[type, ...]:
        """The types a parameter may have, without None: `int | None` -> (int,)."""
        hint = _type_hints(cls)[name]
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        return tuple(t for t in options if t is not type(None))

    @classmethod
    def named(cls, **wanted: object) -> tuple[str, ...]:
        """The parameters of which these facts are true: `named(decides="never")`."""
        return tuple(n for n, f in cls.fields().items() if all(getattr(facts(f), k) == v for k, v in wanted.items()))

    @classmethod
    def meant(cls, name: str, among: Collection[str] | None = None) -> str:
        """What an unknown name probably means, as part of a sentence; `among`: of these names alone."""
        known = cls.fields() if among is None else among
        also = {_folded(other): other for other in known}
        also |= {_folded(other): field for field, spec in cls.fields().items() for other in facts(spec).also}
        field = also.get(_folded(name))
        if field in known:
            return f"did you mean {field!r}?"
        without = {_folded(other): why for others, why in cls.NOT_HERE.items() for other in others}
        return without.get(_folded(name)) or nearest(field or name, known)

    @classmethod
    def default_text(cls, name: str) -> str:
        """The default of a parameter as help texts show it."""
        default = cls.fields()[name].default
        return repr(default) if isinstance(default, str) else f"{default}"

    @classmethod
    def gather(cls, namespace: Mapping[str, object]) -> Self:
        """From the variables of a notebook: `TrainConfig.gather(globals())`.

        Every variable named like a parameter is taken, whether it stands in the parameters cell or was injected by
        `papermill -p`. A simple variable whose name is nearly a parameter's is taken for a slip of the pen.
        """
        known = cls.fields()
        aliases = {_folded(other) for spec in known.values() for other in facts(spec).also}
        for name, value in namespace.items():
            simple = value is None or isinstance(value, bool | int | float | str)
            if simple and not name.startswith("_") and name not in known:
                hint = cls.meant(name) if _folded(name) in aliases else nearest(name, known, cutoff=0.85, otherwise="")
                if hint:
                    raise ConfigError(f"unknown parameter {name!r}: {hint}")
        return cls(**{name: namespace[name] for name in known if name in namespace})

    def replace(self, /, **changes: object) -> Self:
        """A copy with some parameters changed."""
        return type(self)(**{**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, object]:
        """Name -> value, ready for JSON."""
        return {name: getattr(self, name) for name in self.fields()}

    def given(self) -> dict[str, object]:
        """Name -> value of what is not at its default."""
        return {name: value for name, value in self.to_dict().items() if value != self.fields()[name].default}

    def continued(self, now: Self) -> Self:
        """These values to go on with: new are those given in `now` and those of this process, others as they were."""
        new = now.to_dict()
        return self.replace(**{name: new[name] for name in {*now.given(), *now.named(here=True)}})

    def fixed_changes(self, now: Self) -> list[str]:
        """What is otherwise in `now` and may not change while a run goes on, as "lr=0.2 (was 0.1)"."""
        old, new = self.to_dict(), now.to_dict()
        return [f"{n}={new[n]!r} (was {old[n]!r})" for n in self.named(decides="always") if new[n] != old[n]]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a JSON file that holds `to_dict`; AttnetError names it where it does not."""
        content = read_object(Path(path))
        try:
            return cls(**content)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def flags(self) -> list[str]:
        """The command-line words that give these values: every parameter that is not at its default."""
        return [word for name, value in self.given().items() for word in (f"--{name}", str(value))]

    @classmethod
    def parse(cls, arguments: Sequence[str] | None = None, **about: str) -> Self:
        """From command-line flags, one a parameter; `--help` explains each. `about`: see `parse_given`."""
        return cls(**cls.parse_given(arguments, **about))

    @classmethod
    def parse_given(
        cls, arguments: Sequence[str] | None = None, prog: str = "attnet train", description: str = ""
    ) -> dict[str, str]:
        """Name -> value, as text, of the parameters among command-line flags.

        Args:
            arguments: words; None: those of this process.
            prog, description: for `--help`.
        """
        parser = argparse.ArgumentParser(
            prog=prog,
            usage="%(prog)s [--PARAMETER VALUE ...]",  # sixty names would hide what is wrong
            description=description,
            allow_abbrev=False,
            formatter_class=WholeWords,
        )
        for name, spec in cls.fields().items():
            kinds = "|".join(kind.__name__ for kind in cls.kinds(name))
            text = f"{facts(spec).help} (default {cls.default_text(name)})".replace("%", "%%")
            parser.add_argument(f"--{name}", metavar=kinds, default=argparse.SUPPRESS, help=text)
        known, unknown = parser.parse_known_args(arguments)
        if unknown:
            flag = unknown[0].split("=")[0].lstrip("-")
            if unknown[0].startswith("--") and flag not in cls.fields():
                raise ConfigError(f"unknown parameter {flag!r}: {cls.meant(flag)}")
            raise ConfigError(f"unexpected argument {unknown[0]!r}; every parameter is --name value, see --help")
        return vars(known)


def _folded(name: str) -> str:
    """A name without what people write in different ways: batch_size, batch-size, batchSize."""
    return name.lower().replace("-", "").replace("_", "")


class WholeWords(argparse.HelpFormatter):
    """Help whose paths are not broken at their hyphens, so that they can be copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


@functools.cache
def _type_hints(cls: type) -> dict[str, object]:
    return typing.get_type_hints(cls)
