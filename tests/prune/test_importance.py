"""Criteria by hand-computed scores and by their properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.prune.importance import CRITERIA, fpgm, l1, l2


def test_fpgm_of_the_published_example() -> None:
    filters = torch.tensor([2.0, -2.0, 1.0, 0.5, 0.0]).reshape(5, 1, 1, 1)
    assert fpgm(filters).tolist() == [8.5, 11.5, 5.5, 5.0, 5.5]


def test_fpgm_is_the_plain_sum_of_euclidean_distances() -> None:
    weight = torch.randn(7, 3, 2, 2)
    expected = [sum(float((a - b).square().sum().sqrt()) for b in weight) for a in weight]
    torch.testing.assert_close(fpgm(weight), torch.tensor(expected), rtol=1e-5, atol=0.0)


def test_fpgm_tells_near_duplicates_apart() -> None:
    # a^2 + b^2 - 2ab in float32 is off by more than these distances.
    weight = torch.full((40, 512), 3.0)
    weight[:, 0] += torch.arange(40) * 1e-4
    scores = fpgm(weight)
    exact = torch.tensor([sum(abs(i - j) for j in range(40)) * 1e-4 for i in range(40)])
    torch.testing.assert_close(scores, exact, rtol=1e-2, atol=0.0)


def test_l1_and_l2_by_hand() -> None:
    weight = torch.tensor([[3.0, -4.0], [0.0, 2.0]]).reshape(2, 2, 1, 1)
    assert l1(weight).tolist() == [7.0, 2.0]
    assert l2(weight).tolist() == [5.0, 2.0]


@pytest.mark.parametrize("name", CRITERIA)
@given(scale=st.floats(0.1, 10.0), seed=st.integers(0, 100))
def test_scores_follow_the_filters_order_and_scale(name: str, scale: float, seed: int) -> None:
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    scores = CRITERIA[name](weight)
    assert scores.shape == (6,)
    torch.testing.assert_close(CRITERIA[name](weight[order] * scale), scores[order] * scale)


def test_fpgm_does_not_see_a_shift_of_all_filters_but_norms_do() -> None:
    weight = torch.randn(6, 4)
    torch.testing.assert_close(fpgm(weight + 5.0), fpgm(weight), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(l1(weight + 5.0), l1(weight))


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_does_not_track_gradients(name: str) -> None:
    assert not CRITERIA[name](torch.randn(3, 2, requires_grad=True)).requires_grad
