"""A short round of the long one (`tests/harness_fuzz.py`): every reader, the same spoiled files each time."""

import random

import pytest
from fuzz_readers import READERS, mutated, outcome


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", READERS)
def test_whatever_a_file_holds_it_is_a_value_or_a_sentence(reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seeds, chance = READERS[reader][0](), random.Random(2026)
    assert {outcome(tmp_path, seed, reader) for seed in seeds} <= {"read", "refused"}
    found = {}
    for _ in range(15 if reader == "checkpoint" else 60):  # one is six megabytes
        blob = mutated(seeds, chance)
        found.setdefault(outcome(tmp_path, blob, reader), blob)
    assert found.keys() <= {"read", "refused"}
