"""Criteria by hand-computed scores and by their properties."""

import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

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


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


ALIKE: dict[str, Callable[[], Tensor]] = {
    "around a large mean": lambda: noise(60, 30) + 1e3,
    "half of them nearly dead": lambda: torch.cat([noise(30, 50), 1e-12 * noise(30, 50, seed=1)]),
    "pairs": lambda: torch.cat([noise(30, 50), noise(30, 50) + 1e-6 * noise(30, 50, seed=1)]),
    "copies": lambda: torch.cat([noise(30, 50)] * 3),
    "all of one kind": lambda: torch.full((20, 30), 0.1),
    "ever smaller": lambda: noise(60, 30) * torch.logspace(0, -12, 60)[:, None],
    "on a line": lambda: noise(1, 30) + torch.arange(60.0)[:, None] * 1e-4 * noise(1, 30, seed=1),
    "one outlier": lambda: torch.cat([noise(59, 30) * 1e-3, torch.full((1, 30), 1e6)]),
    "longer than a block": lambda: torch.cat([noise(600, 2100), noise(20, 2100) + 1e-6]),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_fpgm_is_exact_for_filters_that_are_alike(kind: str) -> None:
    weight = ALIKE[kind]().double()
    exact = torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=0)
    torch.testing.assert_close(fpgm(weight), exact, rtol=1e-9, atol=0.0)


def test_equal_filters_have_no_distance() -> None:
    weight = noise(1, 1000).expand(700, 1000)
    assert fpgm(weight).tolist() == [0.0] * 700


@pytest.mark.slow
def test_fpgm_takes_no_longer_than_two_matrix_distances() -> None:
    weight = noise(1024, 9216)

    def seconds(run: Callable[[], object]) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    fpgm(weight[:8])
    plain = min(seconds(lambda: torch.cdist(weight, weight)) for _ in range(3))
    assert min(seconds(lambda: fpgm(weight)) for _ in range(3)) < 2 * plain


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
