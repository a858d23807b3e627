"""How much a filter matters, from its weights alone: pure functions of a weight tensor.

Each takes a weight whose first dimension counts the filters, [O, ...], and gives one score per filter, [O]; the
filters with the lowest scores are removed first.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Criterion = Callable[[Tensor], Tensor]

_CLOSE = 1e-5
"""Squared distances below this share of the two squared norms are too inexact: a double's 1e-16, times the root of a
filter's length (or the length, at worst), over this share is the relative error."""
_ROWS, _COLUMNS = 512, 2048
"""Filters, and weights of each, that are multiplied at a time."""


def fpgm(weight: Tensor) -> Tensor:
    """Score filters by their distance to all others: those close to the geometric median can be replaced by them.

    The score of filter j is the sum over i of ||w_i - w_j||_2, over raw flattened filters.

    >>> fpgm(torch.tensor([[2.0], [-2.0], [1.0], [0.5], [0.0]]))
    tensor([ 8.5000, 11.5000,  5.5000,  5.0000,  5.5000])

    Source: He et al. 2019, "Filter Pruning via Geometric Median" (arXiv 1811.00250), equation 7. The distances come
    from a matrix product in double precision, a^2 + b^2 - 2ab, of filters less their mean. That still cancels where
    filters are alike, which is exactly where this criterion looks: those are compared again, less one of them.
    """
    filters = weight.detach().flatten(1)
    squares, close = _squared_distances(filters)
    for index in close.any(dim=1).nonzero().flatten().tolist():
        others = close[index].nonzero().flatten()
        if not len(others):  # an earlier filter's turn told all of its distances
            continue
        alike = torch.cat([others.new_tensor([index]), others])
        pairs = alike[:, None], alike
        again, still_close = _squared_distances(filters[alike], filters[index])
        squares[pairs] = torch.where(close[pairs], again, squares[pairs])
        close[pairs] &= still_close
    return squares.sqrt_().sum(dim=0).to(weight.dtype)


def _squared_distances(filters: Tensor, origin: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Squared distances [O, O] between filters [O, K], in double precision, and which [O, O] of them cancelled.

    Those are below _CLOSE of the two filters' squared norms about `origin` [K], by default their mean. Distances to
    the origin itself never cancel. Only _COLUMNS columns at a time are in double precision, and only one half of the
    symmetric product is computed.
    """
    count, length = filters.shape
    products = torch.zeros(count, count, dtype=torch.float64, device=filters.device)
    for start in range(0, length, _COLUMNS):
        block = filters[:, start : start + _COLUMNS].double()
        block -= block.mean(dim=0) if origin is None else origin[start : start + _COLUMNS]
        for top in range(0, count, _ROWS):
            products[top : top + _ROWS, top:].addmm_(block[top : top + _ROWS], block[top:].T)
    for top in range(_ROWS, count, _ROWS):
        products[top : top + _ROWS, :top] = products[:top, top : top + _ROWS].T
    norms = products.diagonal().clone()
    both = norms[:, None] + norms
    squares = products.mul_(-2.0).add_(both).clamp_(min=0.0).fill_diagonal_(0.0)
    return squares, (squares < both.mul_(_CLOSE)).fill_diagonal_(False)


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
"""The criteria of weights alone by the name that recipes and plans use."""
OBS = "obs"
"""The one that looks at images, too: `compress.prune.brain_surgeon`."""
CRITERION_NAMES = (*CRITERIA, OBS)
