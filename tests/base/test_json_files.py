"""JSON from anybody: what is read, what is refused, and with which words."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnet.base.json_files import JsonError, fits, misfit, parse, read_lines, read_object, to_json

FORM = {"name": str, "epochs": int, "top1": float, "rate": float | None, "table": dict[str, list[int]]}


def refused(file, form=FORM) -> str:
    with pytest.raises(JsonError) as error:
        read_object(file, form)
    assert str(file) in str(error.value)
    return str(error.value)


def test_what_is_sound_is_read(tmp_path):
    file = tmp_path / "a.json"
    content = {"name": "é", "epochs": 3, "top1": 94, "rate": None, "table": {"a": [1]}, "more": [{}]}
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
        assert read_object(file, FORM) == content


def test_a_file_far_larger_than_any_of_ours_is_not_read(tmp_path):
    with open(tmp_path / "a.json", "wb") as file:
        file.truncate(33 << 20)  # takes no room
    assert "34,603,008 bytes, more than 33,554,432" in refused(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff{}", "no JSON"),
        (b"[1]", "holds a list where an object is needed"),
        (b"null", "holds null"),
        (b'{"epochs": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"epochs": ' + b"9" * 30 + b"}", "epochs is a number where int is needed"),
        (b'{"epochs": true}', "epochs is true or false where int is needed"),
        (b'{"top1": "94"}', "top1 is text where float is needed"),
        (b'{"top1": NaN}', "top1 is null where float is needed"),
        (b'{"top1": 1e999}', "top1 is null where float is needed"),
        (b'{"table": {"a": [1, "b"]}}', "table is an object where dict[str, list[int]] is needed"),
        (b'{"a": ' * 200 + b"1" + b"}" * 200, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value,
)
def test_what_is_not_is_a_sentence(tmp_path, blob, says):
    file = tmp_path / "a.json"
    file.write_bytes(blob)
    assert says in refused(file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_text_of_any_system_is_read(tmp_path, encoding):
    (tmp_path / "a.json").write_bytes('{"名": "猫"}\r\n'.encode(encoding))
    assert read_object(tmp_path / "a.json") == {"名": "猫"}


def test_odd_files(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.json")
    assert "is no file" in refused(tmp_path)


def test_lines_need_every_entry(tmp_path):
    file = tmp_path / "a.jsonl"
    form = {"epoch": int, "top1": float}
    file.write_text('{"epoch": 1, "top1": 5.5}\n\n{"epoch": 2, "top1": 6, "more": 1}\n')
    assert [row["epoch"] for row in read_lines(file, form, ("epoch", "top1"))] == [1, 2]
    for line, says in (('{"epoch": 3}', "line 2: lacks top1"), ("[]", "line 2: is a list"), ("{", "no JSON")):
        file.write_text('{"epoch": 1, "top1": 5.5}\n' + line)
        with pytest.raises(JsonError, match=says):
            read_lines(file, form, ("epoch", "top1"))


def test_numbers_that_are_none_are_null():
    text = to_json({"a": math.nan, "b": [math.inf, (1.5, -math.inf)], "c": {"d": math.nan}})
    assert json.loads(text) == {"a": None, "b": [None, [1.5, None]], "c": {"d": None}}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(max_examples=100, deadline=None)
@given(values)
def test_what_is_written_is_read_back(value):
    assert parse(to_json(value)) == value
    assert parse(to_json(value).encode()) == value


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*FORM, "other"]), values))
def test_every_misfit_is_named(content):
    wrong = [name for name, value in content.items() if name in FORM and not fits(value, FORM[name])]
    assert misfit(content, FORM).startswith(wrong[0] if wrong else "")
    assert bool(misfit(content, FORM)) == bool(wrong)
