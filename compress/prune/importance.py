"""How much a filter matters, from its weights alone: pure functions of a weight tensor.

Each takes a weight whose first dimension counts the filters, [O, ...], and gives one score per filter, [O]; the
filters with the lowest scores are removed first.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Criterion = Callable[[Tensor], Tensor]


def fpgm(weight: Tensor) -> Tensor:
    """Score filters by their distance to all others: those close to the geometric median can be replaced by them.

    The score of filter j is the sum over i of ||w_i - w_j||_2, over raw flattened filters.

    >>> fpgm(torch.tensor([[2.0], [-2.0], [1.0], [0.5], [0.0]]))
    tensor([ 8.5000, 11.5000,  5.5000,  5.0000,  5.5000])

    Source: He et al. 2019, "Filter Pruning via Geometric Median" (arXiv 1811.00250), equation 7. The distances are
    taken as differences, in double precision: the quicker a^2 + b^2 - 2ab cancels where filters are alike, which is
    exactly where this criterion looks.
    """
    flat = weight.detach().flatten(1).double()
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sum(dim=0).to(weight.dtype)


def l1(weight: Tensor) -> Tensor:
    """Score filters by the sum of their absolute weights (Li et al. 2016, arXiv 1608.08710).

    >>> l1(torch.tensor([[1.0, -2.0], [0.5, 0.0]]))
    tensor([3.0000, 0.5000])
    """
    return weight.detach().flatten(1).abs().sum(dim=1)


def l2(weight: Tensor) -> Tensor:
    """Score filters by their Euclidean norm.

    >>> l2(torch.tensor([[3.0, -4.0], [0.5, 0.0]]))
    tensor([5.0000, 0.5000])
    """
    return weight.detach().flatten(1).square().sum(dim=1).sqrt()


CRITERIA: dict[str, Criterion] = {"fpgm": fpgm, "l1": l1, "l2": l2}
"""The criteria by the name that recipes and plans use."""
