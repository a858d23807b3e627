"""Every operator of the table computes on the device that it is given, and returns what the CPU does."""

import pytest
import torch
from torch import Tensor

from compress.graph import to_torch
from compress.graph.canonical import canonicalise
from tests.graph.graphs import image_graph, images
from tests.graph.operators.test_table import CASES
from tests.pretend_gpu import GPU, pretend_gpu


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str) -> None:
    case = CASES[name]
    module = to_torch(canonicalise(image_graph(case.body, case.constants, opset=case.opset, outputs=case.outputs)))
    x = torch.from_numpy(images((2, 4, 8, 12), 0))
    with torch.no_grad():
        wanted = outputs(module(x))
        with pretend_gpu():
            found = outputs(module.to(GPU)(x.to(GPU)))
    for one, other in zip(found, wanted, strict=True):
        assert one.device == GPU
        torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-5, equal_nan=True)


def outputs(made: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return made if isinstance(made, tuple) else (made,)
