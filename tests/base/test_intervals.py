"""Confidence intervals: as wide as they should be, and the same for the same seed."""

import math
import statistics

import pytest
import scipy.stats
import torch

from attnet.base.intervals import confidence_interval, over_seeds


def test_interval_covers_the_truth_as_often_as_it_says():
    draws = (torch.rand(200, 100, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    for level, least, most in ((0.95, 0.88, 0.995), (0.5, 0.4, 0.6)):
        intervals = [confidence_interval(row, level, resamples=300, seed=i) for i, row in enumerate(draws)]
        covered = sum(interval.low <= 0.3 <= interval.high for interval in intervals) / len(intervals)
        assert least <= covered <= most


def test_interval_is_as_wide_as_theory_has_it():
    """Mean ± 1.96 standard errors, for many well-behaved values."""
    values = torch.rand(2000, generator=torch.Generator().manual_seed(0))
    interval = confidence_interval(values, resamples=4000)
    error = 1.96 * values.std().item() / math.sqrt(len(values))
    assert interval.mean == pytest.approx(values.double().mean().item(), abs=1e-12)
    assert interval.high - interval.mean == pytest.approx(error, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(error, rel=0.1)


def test_interval_depends_on_the_seed_alone():
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first, state = confidence_interval(values), torch.get_rng_state()
    torch.manual_seed(2)
    assert confidence_interval(values) == first
    assert confidence_interval(values, seed=1) != first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_interval_draws_every_image():
    for i in range(3):
        interval = confidence_interval(torch.eye(3)[i])
        assert (interval.low, interval.mean, interval.high) == pytest.approx((0, 1 / 3, 1))


@pytest.mark.parametrize(
    "values", [torch.tensor([0.1]), torch.full((999,), 0.1, dtype=torch.float64), torch.ones(7, dtype=torch.bool)]
)
def test_interval_of_equal_values_is_a_point(values):
    interval = confidence_interval(values)
    assert interval.low == interval.mean == interval.high == values[0].item()


def test_interval_over_seeds_covers_the_truth_as_often_as_it_says():
    draws = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)).tolist()
    rows = [over_seeds(draw) for draw in draws]
    covered = statistics.mean(row["low"] <= 0 <= row["high"] for row in rows)
    assert covered == pytest.approx(0.95, abs=0.02)


def test_interval_over_seeds_is_students():
    """By hand, with the quantiles of t for 1 and 2 degrees of freedom in closed form; and as scipy says it."""
    for values, quantile in (
        ([1.0, 3.0], math.tan(math.pi * 0.95 / 2)),
        ([93.1, 93.5, 94.2], 0.95 * math.sqrt(2 / (1 - 0.95**2))),
    ):
        error = statistics.stdev(values) / math.sqrt(len(values))
        found, mean = over_seeds(values), statistics.mean(values)
        assert found == pytest.approx({"mean": mean, "low": mean - quantile * error, "high": mean + quantile * error})
        theirs = scipy.stats.t.interval(0.95, len(values) - 1, mean, error)
        assert (found["low"], found["high"]) == pytest.approx(theirs)


def test_an_interval_over_seeds_ends_where_values_do():
    found = over_seeds([2.0, 97.0], within=(0, 100))
    assert (found["low"], found["high"]) == (0, 100)
    assert over_seeds([50.0, 52.0], within=(0, 100)) == over_seeds([50.0, 52.0])


@pytest.mark.parametrize("values", [[], [93.5]])
def test_too_few_seeds_have_no_interval(values):
    assert over_seeds(values) == {"mean": values[0] if values else None, "low": None, "high": None}
