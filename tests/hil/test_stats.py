from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hil import stats


def test_one_outlier_moves_neither_median_nor_mad():
    assert stats.median([10, 10, 11, 10, 900]) == 10
    assert stats.mad([10, 10, 11, 10, 900]) == 0


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two():
    assert stats.median([4, 1, 2, 3]) == 2.5


def test_no_samples_are_an_error():
    with pytest.raises(ValueError, match="at least one"):
        stats.median([])


@given(st.lists(st.integers(0, 2**53), min_size=1, max_size=30))
def test_percentiles_stay_within_the_samples_and_in_order(samples):
    p05, middle, p95 = (stats.percentile(samples, p) for p in (5, 50, 95))

    assert min(samples) <= p05 <= middle <= p95 <= max(samples)
    assert middle == stats.median(samples)
