"""A network that fails is one line, with the node's name."""

import pytest
import torch
from torch import nn

from compress.errors import ModelError
from compress.graph import check_runs, to_torch
from compress.graph.canonical import canonicalise
from tests.graph.graphs import image_graph, weights


def test_the_node_that_fails_is_named() -> None:
    body = "a = Conv (x, w) r = Relu (a) y = Add (r, t)"
    module = to_torch(canonicalise(image_graph(body, {"w": weights(4, 4, 1, 1), "t": weights(1, 1, 1, 5)})))
    module.train()
    check_runs(module, (4, 3, 5))
    with pytest.raises(ModelError, match=r"fails on an image of 4 x 3 x 6 at Add 'y' \(RuntimeError: The size of"):
        check_runs(module, (4, 3, 6))
    assert module.training
    assert module.a.training


def test_any_module_may_be_checked() -> None:
    check_runs(nn.Identity(), (3, 2, 2))
    with pytest.raises(ModelError, match=r"fails on an image of 2 x 2 x 2 \(RuntimeError: .*2 channels"):
        check_runs(nn.Conv2d(3, 2, 1), (2, 2, 2))


def test_what_users_raise_passes() -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ModelError("my own")

    with pytest.raises(ModelError, match=r"^my own$"):
        check_runs(Own(), (1, 1, 1))
