"""What a search may choose: for each parameter a range of numbers, or some values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnet.base.errors import ConfigError
from attnet.engine.parameters import TrainConfig
from attnet.study.sweeps.configs import refuse_own

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

RULE = "PARAMETER=LOW..HIGH, with `log` behind it where factors count, or PARAMETER=VALUE,VALUE is needed"
EXAMPLE = 'as "lr=0.01..0.5 log" or schedule=step,cosine'


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included: whole ones where both are. `log`: a factor anywhere counts alike."""

    low: float
    high: float
    log: bool = False

    def distribution(self) -> BaseDistribution:
        """As optuna has it."""
        from optuna.distributions import FloatDistribution, IntDistribution

        kind = IntDistribution if isinstance(self.low, int) else FloatDistribution
        return kind(self.low, self.high, log=self.log)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, type(self.low)) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low}..{self.high}{' log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """Some values, in no order."""

    values: tuple[object, ...]

    def distribution(self) -> BaseDistribution:
        """As optuna has it."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return (";" if any("," in str(value) for value in self.values) else ",").join(map(str, self.values))


def read_space(words: Sequence[str], base: TrainConfig) -> dict[str, Range | Choice]:
    """["lr=0.01..0.5 log", "schedule=step,cosine"] as parameter -> what it may be.

    Raises:
        ConfigError: not of that form, an unknown parameter or one twice, one that a sweep gives itself, or a value
            that the parameter cannot have; naming the parameter and the rule.
    """
    space: dict[str, Range | Choice] = {}
    for word in words:
        name, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not text:
            raise ConfigError(f"search={word!r}: {RULE}, {EXAMPLE}")
        if name in space:
            raise ConfigError(f"search={word!r}: {name} is there already; give all it may be at once")
        if name not in base.fields():
            raise ConfigError(f"search: unknown parameter {name!r}: {base.meant(name)}")
        try:
            refuse_own({name: text})
            space[name] = _range(name, text, base) if ".." in text else _choice(name, text, base)
        except ConfigError as error:
            raise ConfigError(f"search={word!r}: {error}") from None
    return space


def _range(name: str, text: str, base: TrainConfig) -> Range:
    interval, _, scale = text.partition(" ")
    if scale.strip() not in ("", "log"):
        raise ConfigError(f"{scale.strip()!r} behind a range means nothing; {RULE}, {EXAMPLE}")
    if not {int, float} & set(base.kinds(name)):
        raise ConfigError(f"{name} is no number, so it has no range; give values, as {name}=VALUE,VALUE")
    low, high = (getattr(base.replace(**{name: end}), name) for end in interval.split("..", 1))
    if isinstance(low, str) or isinstance(high, str) or not low < high:
        raise ConfigError(f"{name}={interval}: the first number is to be smaller than the second")
    if scale and low <= 0:
        raise ConfigError(f"{name}={interval} log: a logarithmic range begins above 0; give a small number, or no log")
    return Range(low, high, bool(scale))


def _choice(name: str, text: str, base: TrainConfig) -> Choice:
    given = [value.strip() for value in text.split(";" if ";" in text else ",") if value.strip()]
    values = tuple(dict.fromkeys(getattr(base.replace(**{name: value}), name) for value in given))
    if len(values) < 2:
        raise ConfigError(f"{name}: two different values at least are needed, or a range, as {name}=LOW..HIGH")
    return Choice(values)
