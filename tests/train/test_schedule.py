"""The learning rate's shape against its formula."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.train.schedule import cosine_with_warmup


@given(total=st.integers(1, 500), warmup=st.integers(0, 100))
def test_cosine_behind_a_linear_warmup(total: int, warmup: int) -> None:
    warmup = min(warmup, total - 1)
    for step in range(total):
        factor = cosine_with_warmup(step, total, warmup)
        if step < warmup:
            assert factor == (step + 1) / warmup
        else:
            share = (step - warmup) / (total - warmup)
            assert factor == pytest.approx((1 + math.cos(math.pi * share)) / 2, abs=1e-12)
        assert 0 < factor <= 1


def test_landmarks() -> None:
    """The peak comes with the end of the warm-up, half of it in the middle of the rest, almost nothing at the end."""
    assert cosine_with_warmup(0, 110, 10) == 0.1
    assert cosine_with_warmup(9, 110, 10) == cosine_with_warmup(10, 110, 10) == 1.0
    assert cosine_with_warmup(60, 110, 10) == pytest.approx(0.5)
    assert cosine_with_warmup(109, 110, 10) < 3e-4
    assert cosine_with_warmup(110, 110, 10) == 0.0


@given(total=st.integers(2, 300), warmup=st.integers(0, 50))
def test_rises_then_falls(total: int, warmup: int) -> None:
    warmup = min(warmup, total - 1)
    factors = [cosine_with_warmup(step, total, warmup) for step in range(total)]
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
