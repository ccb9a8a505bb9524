"""Classes of parameters: their facts, values from anywhere, names known from elsewhere, and what editors see."""

from __future__ import annotations

import inspect
import json

import pytest

from attnet.base.errors import ConfigError
from attnet.base.values import Parameters, facts, parameter, parameters


@parameters
class Warming(Parameters):
    warmup: float | None = parameter(default=None, help="epochs of warm-up", low=0, recipe=5.0)


@parameters
class Baking(Warming):
    total_epochs: int = parameter(default=10, help="epochs", low=1, high=300, also=("epochs", "n_epochs"))
    flip: str = parameter(default="off", help="mirror images", choices=("off", "random"), true="random")
    scale: float | str = parameter(default=128.0, help='loss scale: a number, or "dynamic"', low=1)
    modules: str | None = parameter(default=None, help="modules a stage", counts=True)
    where: str = parameter(default="", help="folder; a path of 100 %", decides="never", here=True)
    quick: bool = parameter(default=False, help="be quick", decides="never")

    def check(self) -> None:
        if self.quick and self.total_epochs > 100:
            raise ConfigError("quick: not with more than 100 epochs")


def test_each_parameter_has_its_facts():
    assert list(Baking.fields()) == ["total_epochs", "flip", "scale", "modules", "where", "quick", "warmup"]
    spec = facts(Baking.fields()["total_epochs"])
    assert (spec.help, spec.low, spec.high, spec.decides, spec.recipe) == ("epochs", 1, 300, "always", None)
    assert facts(Baking.fields()["warmup"]).recipe == 5.0
    assert Baking.named(decides="never") == ("where", "quick") and Baking.named(decides="never", here=True) == (
        "where",
    )
    assert [Baking.kinds(name) for name in ("warmup", "scale", "modules")] == [(float,), (float, str), (str,)]
    assert [Baking.default_text(name) for name in ("flip", "scale", "warmup")] == ["'off'", "128.0", "None"]


def test_an_editor_sees_names_types_and_defaults():
    signature = inspect.signature(Baking)
    assert list(signature.parameters) == list(Baking.fields())
    assert {p.kind for p in signature.parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    epochs = signature.parameters["total_epochs"]
    assert (epochs.annotation, epochs.default) == ("int", 10)
    with pytest.raises(TypeError):
        Baking(3)
    with pytest.raises(AttributeError):
        Baking().total_epochs = 3


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"total_epochs": "3", "warmup": 2}, {"total_epochs": 3, "warmup": 2.0}),
        ({"flip": True, "quick": "yes"}, {"flip": "random", "quick": True}),
        ({"flip": False, "scale": "dynamic"}, {"flip": "off", "scale": "dynamic"}),
        ({"flip": "RANDOM", "modules": [1, 2, 3]}, {"flip": "random", "modules": "1,2,3"}),
        ({"warmup": None, "modules": "(1, 2)"}, {"warmup": None, "modules": "1,2"}),
    ],
)
def test_values_come_in_their_types(given, taken):
    baking = Baking(**given)
    assert {name: getattr(baking, name) for name in taken} == taken
    assert [type(getattr(baking, name)) for name in taken] == [type(value) for value in taken.values()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"total_epochs": 0}, "total_epochs=0: a whole number at least 1 and at most 300 is needed (epochs)"),
        ({"scale": "static"}, "scale='static': a number at least 1 or \"dynamic\" is needed"),
        ({"flip": "often"}, "flip='often': choose one of off, random"),
        ({"modules": "1,x"}, "modules='1,x': whole numbers with commas between are needed, as 1,2,3"),
        ({"total_epochs": None}, "total_epochs=None: a whole number"),
        ({"quick": True, "total_epochs": 101}, "quick: not with more than 100 epochs"),
        ({"total_epoch": 3}, "unknown parameter 'total_epoch': did you mean 'total_epochs'?"),
        ({"epochs": 3}, "unknown parameter 'epochs': did you mean 'total_epochs'?"),
        ({"FLIP": True}, "unknown parameter 'FLIP': did you mean 'flip'?"),
        ({"zzz": 3}, "unknown parameter 'zzz': known are total_epochs, flip"),
    ],
)
def test_a_mistake_is_named_with_its_mend(given, message):
    with pytest.raises(ConfigError) as error:
        Baking(**given)
    assert str(error.value).startswith(message)


def test_a_word_of_python_is_a_name_as_any_other():
    for create in (Baking, Baking().replace):
        with pytest.raises(ConfigError, match="unknown parameter 'self'"):
            create(**{"self": 3})


@pytest.mark.parametrize("flag", ["--epochs", "--N-Epochs=3", "--total-epochs=3"])
def test_names_from_elsewhere_are_known_on_the_command_line(flag):
    with pytest.raises(ConfigError, match=r"did you mean 'total_epochs'\?"):
        Baking.parse([flag, "3"])


def test_names_from_elsewhere_are_known_in_a_notebook():
    cell = {"total_epochs": "7", "warmup": 1, "figure": object(), "_scale": 3, "names": [], "n": 2}
    assert Baking.gather(cell) == Baking(total_epochs=7, warmup=1.0)
    for slip in ("epochs", "total_epoch"):
        with pytest.raises(ConfigError, match=f"'{slip}': did you mean 'total_epochs'"):
            Baking.gather(cell | {slip: 2})


def test_flags_and_json_give_the_same_values_again(tmp_path):
    every = Baking(total_epochs=3, flip="random", scale="dynamic", modules="1,2", where="a b", quick=True, warmup=0.5)
    for baking in (Baking(), Baking(total_epochs=3, where="a"), every):
        assert Baking.parse(baking.flags()) == baking
        (tmp_path / "values.json").write_text(json.dumps(baking.to_dict()))
        assert Baking.load(tmp_path / "values.json") == baking
    assert Baking().flags() == [] and Baking(total_epochs=3).flags() == ["--total_epochs", "3"]
    assert set(every.given()) == set(Baking.fields())
    assert Baking.parse_given(["--warmup", "2"]) == {"warmup": "2"}
    assert every.replace(quick=False).given() == {n: v for n, v in every.given().items() if n != "quick"}


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        Baking.parse(["--help"], prog="bake", description="Bake.")
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and text.startswith("usage: bake")
    for name, spec in Baking.fields().items():
        assert f"{facts(spec).help} (default {Baking.default_text(name)})" in text.split(f" --{name} ", 1)[1]


def test_a_run_goes_on_with_its_values_and_those_of_this_process():
    begun = Baking(total_epochs=3, scale=64, where="old")
    assert begun.continued(Baking(total_epochs=5)) == Baking(total_epochs=5, scale=64)
    assert begun.fixed_changes(Baking(total_epochs=5, scale=64)) == ["total_epochs=5 (was 3)"]
