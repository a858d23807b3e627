"""Nodes that ONNX's reference implementation computes: what goes through them, and what does not."""

import copy

import pytest
import torch

from compress.errors import ModelError, TrainingError
from compress.graph import to_torch
from compress.graph.canonical import canonicalise
from compress.graph.kept import KeptNode, kept_nodes
from tests.graph.graphs import image_graph, images, imported, weights

CONV = {"w": weights(4, 4, 1, 1)}


def test_a_backbone_is_trained_beside_a_kept_node() -> None:
    """The second output is the kept one, and the first is trained on."""
    model = image_graph("c = Conv (x, w) y = Relu (c) h = Hardmax <axis = 1> (c)", CONV, outputs=("y", "h"))
    module = imported(model)
    assert kept_nodes(module) == {"node 'h' (Hardmax)": False}
    module(torch.from_numpy(images((2, 4, 5, 6))))[0].sum().backward()
    assert float(module.c.weight.grad.abs().sum()) > 0


def test_in_front_of_the_first_weights_no_gradient_is_needed() -> None:
    module = imported(image_graph("h = Hardmax <axis = 1> (x) y = Conv (h, w)", CONV))
    assert kept_nodes(module) == {"node 'h' (Hardmax)": False}
    module(torch.from_numpy(images((2, 4, 5, 6)))).sum().backward()
    assert float(module.y.weight.grad.abs().sum()) > 0


def test_a_gradient_through_it_is_refused() -> None:
    module = to_torch(canonicalise(image_graph("c = Conv (x, w) y = Hardmax <axis = 1> (c)", CONV)))
    assert kept_nodes(module) == {"node 'y' (Hardmax)": True}
    result = module(torch.from_numpy(images((2, 4, 5, 6))))
    with pytest.raises(
        TrainingError, match=r"^node 'y' \(Hardmax\): has no trainable form, and stands between weights"
    ):
        result.sum().backward()


def test_several_outputs_and_only_the_last() -> None:
    pool = "MaxPool <kernel_shape = [2, 2], strides = [2, 2]>"
    module = to_torch(
        canonicalise(image_graph(f"p, i = {pool} (x) y = Cast <to = 1> (i) z = Neg (p)", outputs=("y", "z")))
    )
    x = torch.from_numpy(images((1, 4, 4, 6)))
    places, values = module(x)
    assert torch.equal(x.flatten()[places.long().flatten()], -values.flatten())
    alone = to_torch(canonicalise(image_graph(f"p, i = {pool} (x) y = Cast <to = 1> (i)")))
    assert torch.equal(alone(x), places)


def test_a_copy_computes_the_same() -> None:
    module = to_torch(canonicalise(image_graph("y = Hardmax <axis = 1> (x)")))
    x = torch.from_numpy(images((2, 4, 5, 6)))
    first = module(x)
    assert torch.equal(copy.deepcopy(module)(x), first)
    assert "Hardmax" in str(module.y)


def test_what_the_reference_fails_on_names_the_node() -> None:
    node = image_graph("y = Det (x)").graph.node[0]
    node.name = "d"
    with pytest.raises(ModelError, match=r"^node 'd' \(Det\): ONNX's reference implementation fails \("):
        KeptNode(node, 17)(torch.zeros(1, 4, 5, 6))
