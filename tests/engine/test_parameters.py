"""Parameters: each explained and checked, the same in Python, on the command line and in config.json."""

from __future__ import annotations

import ast
import json
import math
import pwd
from pathlib import Path

import pytest
from PIL import Image

from attnet.base.errors import ConfigError
from attnet.base.files.paths import resolve_path
from attnet.base.values import facts
from attnet.base.words import names_of
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan, task
from attnet.engine.recipes import LENGTHS, MODES, RECIPES
from attnet.model.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]
FIELDS = TrainConfig.fields()


def another_value(name: str) -> object:
    """A valid value of a parameter that is not its default."""
    spec = FIELDS[name]
    kinds, rules = TrainConfig.kinds(name), facts(spec)
    if rules.counts:
        return "1,2,3"
    if rules.choices:
        return next((c for c in rules.choices if c != spec.default), spec.default)
    if bool in kinds:
        return not spec.default
    if int in kinds:
        return 5
    return 0.5 if kinds == (float,) else 256.0 if float in kinds else "some where/else.pt"


# ---- the table of parameters ----


@pytest.mark.parametrize("name", FIELDS)
def test_every_parameter_is_explained(name):
    spec = FIELDS[name]
    kinds = TrainConfig.kinds(name)
    assert len(facts(spec).help) > 5
    assert kinds and set(kinds) <= {int, float, bool, str}
    if spec.default is not None:
        assert getattr(TrainConfig(**{"pretrained": "", name: spec.default}), name) == spec.default
    elif name not in ("num_classes", "channels_last", "new_head", *OPTIONS):  # data set, device, weights, model decide
        assert all(name in table for table in MODES.values()) or facts(spec).recipe is not None
        assert TrainConfig.default_text(name) != "None"


@pytest.mark.parametrize("table", [*MODES.values(), *RECIPES.values(), *LENGTHS.values()])
def test_presets_hold_valid_parameters_that_are_open_by_default(table):
    config = TrainConfig(**table)
    assert {name: getattr(config, name) for name in table} == table
    assert [name for name in table if FIELDS[name].default is not None] == []


@pytest.mark.parametrize("path", sorted((ROOT / "attnet").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_oldest_supported_python_can_parse_the_package(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


# ---- the command line ----


@pytest.mark.parametrize("form", ["--{name} {value}", "--{name}={value}"])
@pytest.mark.parametrize("name", FIELDS)
def test_every_parameter_is_a_flag(name, form):
    value = another_value(name)
    flag = form.format(name=name, value=value)
    arguments = flag.split(" ", 1) if "=" not in form else [flag]
    config = TrainConfig.parse([*arguments, *([] if name == "pretrained" else ["--pretrained", "w.pt"])])
    assert getattr(config, name) == value
    assert type(getattr(config, name)) is type(value)
    pretrained = value if name == "pretrained" else "w.pt"
    assert config == TrainConfig(**{"pretrained": pretrained, name: value})


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        TrainConfig.parse(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, spec in FIELDS.items():
        explained = text.split(f" --{name} ", 1)[1]
        assert " ".join(facts(spec).help.split()) in explained
        assert f"(default {TrainConfig.default_text(name)})" in explained


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--total_epoch", "1"], ["'total_epoch'", "did you mean 'total_epochs'"]),
        (["--total-epochs=1"], ["did you mean 'total_epochs'"]),
        (["--learning-rate", "1"], ["did you mean 'lr'"]),
        (["--batchSize", "1"], ["did you mean 'train_batch_size'"]),
        (["--gpu", "1"], ["did you mean 'device_id'"]),
        (["--weights", "x"], ["did you mean 'pretrained'"]),
        (["--fp16", "1"], ["did you mean 'amp'"]),
        (["--num_workers", "4"], ["unknown parameter 'num_workers': the images live on the device", "leave it out"]),
        (["--optimizer", "adam"], ["SGD with Nesterov momentum"]),
        (["--see", "1"], ["did you mean 'seed'"]),  # no abbreviations: they would break when a parameter is added
        (["seed=1"], ["'seed=1'", "--name value"]),
        (["runs"], ["'runs'", "--name value"]),
    ],
)
def test_a_wrong_flag_names_the_right_one(arguments, words):
    with pytest.raises(ConfigError) as error:
        TrainConfig.parse(arguments)
    assert [word for word in words if word not in str(error.value)] == []


# ---- checks ----


@pytest.mark.parametrize(
    "name, value, rule",
    [
        ("total_epochs", 0, "a whole number at least 1"),
        ("total_epochs", -3, "at least 1"),
        ("total_epochs", 1.5, "a whole number"),
        ("total_epochs", "many", "a whole number"),
        ("total_epochs", "", "a whole number"),
        ("total_epochs", True, "a whole number"),
        ("total_epochs", math.inf, "a whole number"),
        ("train_batch_size", "32.5", "a whole number"),
        ("train_batch_size", [32], "a whole number"),
        ("test_batch_size", None, "a whole number"),
        ("train_images", -1, "at least 0"),
        ("device_id", -1, "at least 0"),
        ("seed", 2**32, "at most 4294967295"),
        ("crop_padding", 17, "at least 0 and at most 16"),
        ("lr", -0.1, "a number at least 0"),
        ("lr", math.nan, "a number"),
        ("lr", "inf", "a number"),
        ("lr", False, "a number"),
        ("momentum", 1, "at most 0.9999"),
        ("loss_scale", 0.5, 'at least 1 and at most 1e+29 or "dynamic"'),
        ("loss_scale", "static", '"dynamic"'),
        ("loss_scale", "nan", '"dynamic"'),
        ("loss_scale", True, '"dynamic"'),
        ("flip", "maybe", "choose one of off, random, alternating"),
        ("normalize", 2, "true or false"),
        ("is_train", None, "true or false"),
        ("model", 92, "text"),
        ("data_path", None, "text"),
        ("mode", "fast", "full, performance, quick, rehearsal"),
        ("device_type", "TPU", "NPU, GPU, MPS, CPU"),
        ("amp", "O4", "O0, O1, O2, O3"),
        ("amp", 2, "text"),
    ],
)
def test_a_bad_value_is_named_with_its_rule(name, value, rule):
    with pytest.raises(ConfigError) as error:
        TrainConfig(**{name: value})
    assert f"{name}={value!r}" in str(error.value)
    assert rule in str(error.value)


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("total_epochs", "3", 3),
        ("total_epochs", 3.0, 3),
        ("total_epochs", "1e2", 100),
        ("train_images", 2**53 + 1, 2**53 + 1),  # which no float holds
        ("lr", 1, 1.0),
        ("lr", " 1e-3", 0.001),
        ("flip", "False", "off"),
        ("compile", False, "off"),
        ("flip", "yes", "random"),
        ("flip", None, None),
        ("loss_scale", "256", 256.0),
        ("loss_scale", "dynamic", "dynamic"),
        ("device_type", "npu", "NPU"),
        ("amp", "o2", "O2"),
        ("mode", "FULL", "full"),
        ("output_dir", Path("runs") / "a", str(Path("runs") / "a")),
    ],
)
def test_a_value_is_taken_when_nothing_is_lost(name, value, expected):
    taken = getattr(TrainConfig(**{name: value}), name)
    assert taken == expected
    assert type(taken) is type(expected)


def test_an_unknown_parameter_gets_the_nearest_name():
    with pytest.raises(ConfigError, match=r"'batch_size'.*'t[a-z]+_batch_size'"):
        TrainConfig(batch_size=32)
    with pytest.raises(ConfigError, match="'zzz': known are mode, is_train"):
        TrainConfig(zzz=1)


def test_evaluation_and_fine_tuning_need_weights():
    for parameters in ({"is_train": False}, {"is_pretrain": True}):
        with pytest.raises(ConfigError, match="pretrained=PATH"):
            TrainConfig(**parameters)
        TrainConfig(**parameters, pretrained="best.pt")


def test_the_variables_of_a_notebook():
    cell = {"total_epochs": 2, "seed": "5", "figure": object(), "_lr": 3, "results": [], "n": 1, "epoch": 3}
    assert TrainConfig.gather(cell) == TrainConfig(total_epochs=2, seed=5)
    with pytest.raises(ConfigError, match="'total_epoch': did you mean 'total_epochs'"):
        TrainConfig.gather(cell | {"total_epoch": 2})  # as `papermill -p total_epoch 2` injects it


# ---- keeping ----


def test_json_round_trip(tmp_path):
    config = TrainConfig(**{name: another_value(name) for name in FIELDS})
    assert [name for name in FIELDS if getattr(config, name) == FIELDS[name].default] == []
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert TrainConfig.load(tmp_path / "config.json") == config
    assert TrainConfig(**TrainConfig().to_dict()) == TrainConfig()


def test_replace_checks_and_leaves_the_original():
    config = TrainConfig(lr=0.2)
    assert config.replace(seed=3) == TrainConfig(lr=0.2, seed=3)
    assert config.seed == 0
    with pytest.raises(ConfigError, match="lr=-1"):
        config.replace(lr=-1)


def test_relative_paths_start_at_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve_path("runs/a") == ROOT / "runs" / "a"
    assert resolve_path(tmp_path / "a") == tmp_path / "a"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_path("~/a") == tmp_path / "a"


# ---- beyond all bounds ----

NUMBERS = [name for name in FIELDS if {int, float} & {*TrainConfig.kinds(name)} or facts(FIELDS[name]).counts]
PATHS = TrainConfig.named(path=True)
TEXTS = [name for name in FIELDS if TrainConfig.kinds(name) == (str,)]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [1e308, -1e308, 10**30, 10**5000], ids=["1e308", "-1e308", "10**30", "10**5000"])
def test_no_number_is_beyond_all_bounds(name, value):
    with pytest.raises(ConfigError, match=rf"^{name}=.*(at least|at most|none of|a whole number|whole numbers)"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", ["a\0b", "x" * 5000], ids=["NUL", "long"])
def test_no_text_ends_in_a_raw_error(name, value):
    if value[0] == "x" and name not in PATHS:
        return
    with pytest.raises(ConfigError, match=f"^{name}=") as error:
        TrainConfig(**{name: value})
    assert len(str(error.value)) < 500


def test_which_parameters_are_paths_and_names():
    assert set(PATHS) == {"pretrained", "data_path", "output_dir", "resume"}
    assert set(TrainConfig.named(names=True)) == {"classes", "freeze"}


@pytest.mark.parametrize("name", PATHS)
def test_paths_go_through_no_shell_and_are_meant_as_in_one(name, tmp_path, monkeypatch):
    def taken(value: object) -> str:
        return getattr(TrainConfig(**{name: value}), name)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ATTNET_PLACE", "there")
    monkeypatch.delenv("ATTNET_NOWHERE", raising=False)
    assert taken("~/a") == taken("$HOME/a") == taken("${HOME}/a") == str(tmp_path / "a")
    assert taken("x/$ATTNET_PLACE-1") == "x/there-1"
    assert taken(2024) == "2024" and taken("a $ b") == "a $ b"
    for value, why in (
        ("$ATTNET_NOWHERE/a", "there is no environment variable ATTNET_NOWHERE here"),
        ("~nosuchuser/a", "there is no user nosuchuser here"),
        (f"a/{'ö' * 128}", "too long; file systems take names of 255 bytes"),
        ("a/" * 3000, "too long"),
        ("\ud800", "cannot be written in this machine's encoding"),
    ):
        with pytest.raises(ConfigError, match=f"^{name}=.*{why}"):
            taken(value)
    with pytest.raises(ConfigError, match=f"{name}=2024.5: text is needed"):  # 2024.50, for all that is left of it
        taken(2024.5)


def test_a_home_that_is_not_known(monkeypatch):
    def no_entry(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for use in (lambda: TrainConfig(output_dir="~/a"), lambda: resolve_path("~/a"), lambda: resolve_path(Path("~"))):
        with pytest.raises(ConfigError, match=r"no home folder is known here \(HOME is not set\)"):
            use()


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("cat, dog", ["cat", "dog"]),
        (["cat", "dog"], ["cat", "dog"]),
        ("[cat, dog]", ["cat", "dog"]),
        ("['cat', 'dog']", ["cat", "dog"]),
        ('["Pepper,_bell", "cat"]', ["Pepper,_bell", "cat"]),
        (("Pepper,_bell", " cat "), ["Pepper,_bell", " cat "]),
        ([3, 5], ["3", "5"]),
        ('["猫", "[x"]', ["猫", "[x"]),
        ("", []),
    ],
)
def test_a_list_of_names_is_one_however_it_is_written_and_stays_one(given, names, tmp_path):
    config = TrainConfig(classes=given)
    assert names_of(config.classes) == names
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    again = [TrainConfig(classes=config.classes), TrainConfig.parse(config.flags())]
    for other in (*again, TrainConfig.load(tmp_path / "config.json"), TrainConfig.gather({"classes": names})):
        assert names_of(other.classes) == names
    assert TrainConfig(classes=["cat", "dog"]).classes == "cat,dog"


@pytest.mark.parametrize("given", [["cat", None], [True, "cat"], {"cat": 1}, 3.5, '["cat", ["dog"]]'])
def test_what_is_no_list_of_names(given):
    with pytest.raises(ConfigError, match=r"^classes=.*names with commas between are needed, or a list of them"):
        TrainConfig(classes=given)


def test_classes_whose_names_hold_commas_are_chosen_and_chosen_again(tmp_path):
    for name in ("Pepper,_bell", "cat", "dog, small"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    asked = TrainConfig(
        data_path=tmp_path, classes=["dog, small", "Pepper,_bell"], model="attention56_tiny", train_batch_size=1
    )
    plan = make_plan(asked)
    assert plan.dataset.classes == ("dog, small", "Pepper,_bell")
    assert task(plan.config).endswith("(dog, small, Pepper,_bell)")
    assert make_plan(TrainConfig(**plan.config.to_dict())).dataset.classes == plan.dataset.classes
    assert make_plan(asked.replace(classes="cat,2")).config.classes == '["cat", "dog, small"]'
