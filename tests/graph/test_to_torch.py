"""The imported module: its names, what its fx nodes remember, how it is copied and trained; what cannot be imported."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from compress.errors import ModelError, UnsupportedOpError
from compress.graph import from_torch, to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.graph.operators.table import OPS
from tests.graph.graphs import assert_same, image_graph, images, imported, initialiser, literal, node_of, run, weights
from tests.graph.networks import Mobile, randomise

CONV = {"w": weights(5, 4, 3, 3), "b": weights(5)}
NORM = {"s": np.abs(weights(5)) + 0.5, "o": weights(5), "m": weights(5), "v": np.abs(weights(5)) + 0.5}
NETWORK = image_graph(
    """c = Conv (x, w, b) n = BatchNormalization (c, s, o, m, v) h = HardSwish (n) p = GlobalAveragePool (h)
    y = Flatten (p)""",
    CONV | NORM,
)


class TestNames:
    def test_submodules_are_named_after_the_values_they_compute(self) -> None:
        module = to_torch(canonicalise(NETWORK))
        assert [(name, type(layer)) for name, layer in module.named_children()] == [
            ("c", nn.Conv2d),
            ("n", nn.BatchNorm2d),
            ("h", nn.Hardswish),
            ("p", nn.AdaptiveAvgPool2d),
            ("y", nn.Flatten),
        ]

    def test_nodes_remember_value_and_operator(self) -> None:
        module = to_torch(canonicalise(NETWORK))
        found = [
            (node.meta.get("onnx"), node.meta.get("op_type")) for node in module.graph.nodes if node.op != "output"
        ]
        assert found == [
            ("x", None),
            ("c", "Conv"),
            ("n", "BatchNormalization"),
            ("h", "HardSwish"),
            ("p", "GlobalAveragePool"),
            ("y", "Flatten"),
        ]

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            ("/backbone/conv.0/Conv_output_0", "backbone_conv_0_Conv_output_0"),
            ("123", "v_123"),
            ("class", "v_class"),  # a word of Python
            ("graph", "v_graph"),  # an attribute of every GraphModule
            ("training", "v_training"),
            ("forward", "v_forward"),
            ("卷积.tmp_0", "tmp_0"),
            ("::", "value"),
        ],
    )
    def test_any_value_name_gives_a_python_name(self, value: str, name: str) -> None:
        model = image_graph("c = Conv (x, w) y = Relu (c)", CONV)
        model.graph.node[0].output[0] = value
        model.graph.node[1].input[0] = value
        module = imported(model)
        assert isinstance(module.get_submodule(name), nn.Conv2d)

    def test_names_that_become_the_same_are_numbered(self) -> None:
        model = image_graph("c = Relu (x) d = Sigmoid (c) y = Neg (d)")
        model.graph.node[0].output[0] = model.graph.node[1].input[0] = "a.b"
        model.graph.node[1].output[0] = model.graph.node[2].input[0] = "a/b"
        assert [name for name, _ in imported(model).named_children()] == ["a_b", "a_b_1"]

    @pytest.mark.parametrize("name", ["0", "input.1", "lambda", "x:0"])
    def test_any_name_of_the_input(self, name: str) -> None:
        model = image_graph("y = Relu (x)")
        model.graph.input[0].name = model.graph.node[0].input[0] = name
        template = canonicalise(model)
        module = to_torch(template)
        x = torch.from_numpy(images((1, 4, 2, 3)))
        torch.testing.assert_close(module(x), torch.relu(x))
        assert next(iter(module.graph.nodes)).meta["onnx"] == name

    def test_parts_of_one_node_keep_their_own_names(self) -> None:
        model = image_graph("a, b = Split <axis = 1> (x, s) y = Concat <axis = 1> (b, a)", {"s": np.array([1, 3])})
        module = to_torch(canonicalise(model))
        parts = [node.meta["onnx"] for node in module.graph.nodes if node.meta.get("op_type") == "Split"]
        assert parts == ["a", "a", "b"]


class TestModule:
    def test_one_output_is_plain_and_several_are_a_tuple(self) -> None:
        one = to_torch(canonicalise(image_graph("y = Relu (x)")))
        two = to_torch(canonicalise(image_graph("y = Relu (x) z = Neg (x)", outputs=("y", "z"))))
        x = torch.from_numpy(images((1, 4, 2, 3)))
        assert torch.equal(one(x), torch.relu(x))
        first, second = two(x)
        assert torch.equal(first, torch.relu(x))
        assert torch.equal(second, -x)

    def test_outputs_that_are_inputs_or_constants(self) -> None:
        model = image_graph(
            "y = Identity (x) z = Identity (c) r = Relu (x)", {"c": weights(3)}, outputs=("r", "y", "z")
        )
        imported(model)

    def test_it_evaluates_at_first(self) -> None:
        assert not any(part.training for part in to_torch(canonicalise(NETWORK)).modules())

    def test_graph_is_left_as_it_was(self) -> None:
        template = canonicalise(NETWORK)
        before = template.SerializeToString(deterministic=True)
        module = to_torch(template)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        assert template.SerializeToString(deterministic=True) == before

    def test_constants_are_buffers_and_numbers_are_numbers(self) -> None:
        model = image_graph("a = Mul (x, c) y = Add (a, two)", {"c": weights(4, 1, 1), "two": np.float32(2)})
        module = to_torch(canonicalise(model))
        assert [name for name, _ in module.named_buffers()] == ["c"]
        assert list(module.parameters()) == []

    def test_copy_is_independent_and_written_alike(self) -> None:
        template = canonicalise(NETWORK)
        module = to_torch(template)
        twin = copy.deepcopy(module)
        assert [node.meta.get("onnx") for node in twin.graph.nodes] == [
            node.meta.get("onnx") for node in module.graph.nodes
        ]
        assert to_onnx(twin, template) == to_onnx(module, template)
        twin.c.weight.data.zero_()  # type: ignore[operator, union-attr]
        assert_same(NETWORK, to_onnx(module, template))
        assert not initialiser(to_onnx(twin, template), "w").any()


class TestTraining:
    def test_a_step_changes_weights_and_statistics_and_is_written(self) -> None:
        template = from_torch(randomise(Mobile()), torch.zeros(1, 3, 32, 64))
        module = to_torch(template)
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        module.train()
        tuner = torch.optim.SGD(module.parameters(), lr=0.1)
        loss = module(torch.from_numpy(images((4, 3, 32, 64)))).log()[:, 0].mean()
        loss.backward()
        tuner.step()
        unchanged = [name for name, tensor in module.state_dict().items() if torch.equal(tensor, before[name])]
        assert unchanged == []

        module.eval()
        written = to_onnx(module, template)
        x = images((2, 3, 16, 40), seed=1)
        with torch.no_grad():
            expected = module(torch.from_numpy(x)).numpy()
        found = run(written, x)["output"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.abs(found - run(template, x)["output"]).max() > 1e-4
        again = to_torch(written).state_dict()
        for name, tensor in module.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(again[name], tensor), name

    def test_gradients_reach_every_weight_of_a_recurrent_network(self) -> None:
        body = """q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q)
            a = LSTM <hidden_size = 3, direction = "bidirectional"> (t, w, r, b) y = ReduceMean <axes = [0, 1]> (a)"""
        constants = {"w": weights(2, 12, 4), "r": weights(2, 12, 3), "b": weights(2, 24)}
        module = to_torch(canonicalise(image_graph(body, constants))).train()
        module(torch.from_numpy(images((3, 4, 5, 6)))).sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


class TestUnsupported:
    def test_every_operator_and_node_is_named_at_once(self) -> None:
        """Two operators that are not in the table, one of them twice, and a form of one that is."""
        body = """b = Relu (x) d = DeformConv (b, w, o) e = DeformConv (x, w, o)
            f = GroupNormalization <num_groups = 2> (b, g, g) s = Sum (d, e) y = Reshape (f, n)
            r = RandomNormalLike (b)"""
        constants = {
            "w": weights(4, 4, 1, 1), "o": weights(1, 2, 8, 12), "g": weights(2), "n": np.array([0, 4, 8, 12]),
        }  # fmt: skip
        model = image_graph(body, constants, outputs=("y", "s", "r"), opset=19)
        with pytest.raises(UnsupportedOpError) as caught:
            to_torch(canonicalise(model))
        problems = re.search(r"cannot import (\d+) node\(s\): (.*)\. Supported operators: (.*)\.$", str(caught.value))
        assert problems is not None
        assert problems[1] == "4"
        untrained = "that cannot be trained)"
        assert problems[2] == ", ".join(
            (
                f"DeformConv (d: weights ('w.d.1') {untrained}",
                f"DeformConv (e: weights ('w') {untrained}",
                f"GroupNormalization (f: one scale for each group, as before opset 21, weights ('g.f.1') {untrained}",
                "RandomNormalLike (r: not a function of tensors)",
            )
        )
        assert caught.value.nodes[3] == "node 'r' (RandomNormalLike): not a function of tensors"
        assert problems[3].split(", ") == sorted(OPS)

    def test_node_with_several_outputs_hides_no_other(self) -> None:
        body = """q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q)
            a, h, c = LSTM <hidden_size = 3, clip = 1.0> (t, w, r) v = RandomNormalLike (c)
            b = Bernoulli (a) y = Neg (v) u = Neg (b)"""
        constants = {
            "w": weights(1, 12, 4),
            "r": weights(1, 12, 3),
        }
        model = image_graph(body, constants, outputs=("y", "u", "h"))
        with pytest.raises(
            UnsupportedOpError, match=r"^cannot import 3 node\(s\): LSTM .*RandomNormalLike .*Bernoulli"
        ):
            to_torch(canonicalise(model))

    def test_operator_of_another_domain_is_named_with_it(self) -> None:
        model = image_graph("y = com.microsoft.Gelu (x)")
        with pytest.raises(
            UnsupportedOpError,
            match=literal("cannot import 1 node(s): com.microsoft.Gelu (y: an operator of another domain)."),
        ):
            to_torch(model)

    def test_subgraphs_are_named(self) -> None:
        text = """c = Cast <to = 9> (m) y = If (c) <then_branch = t () => (float[N, 4, H, W] o) { o = Relu (x) },
            else_branch = e () => (float[N, 4, H, W] p) { p = Neg (x) }>"""
        model = image_graph(f"m = ReduceMean <keepdims = 0> (x) {text}")
        with pytest.raises(
            UnsupportedOpError, match=literal("If (y: a graph of its own, which depends on what is computed")
        ):
            to_torch(canonicalise(model))

    def test_value_used_before_it_is_computed(self) -> None:
        model = image_graph("a = Relu (x) y = Neg (a)")
        nodes = [model.graph.node[1], model.graph.node[0]]
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(copies)
        assert node_of(model, "y").input[0] == "a"
        with pytest.raises(ModelError, match=literal("value 'a' is used before it is computed.")):
            to_torch(model)
