"""Channels that are normalised: whole groups of GroupNorm go exactly, LayerNorm's with the norm over what is left."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.measure.cost import module_cost
from compress.measure.session import Session
from compress.prune.channel_scores import lowest_channels
from compress.prune.channels import remove_channels, silence_channels
from compress.prune.groups import find_groups, survey_channels
from compress.prune.norms import NormOfKept, norm_notes, shrink_norm
from compress.prune.plan import plan_ratios
from compress.prune.ranking import Network
from tests.lookalikes.networks import Svtr
from tests.prune import coupled_nets as nets
from tests.prune.coupled_cases import SHAPE, Case, case, check, held, images, with_zeros


class Grouped(nn.Module):
    """A residual block whose sum two GroupNorms read; one of another number of groups inside."""

    def __init__(self, groups: int = 6, inner: int = 4) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 12, 4, 4), nn.GroupNorm(groups, 12)
        self.mid, self.two = nn.Conv2d(12, 8, 1), nn.GroupNorm(inner, 8)
        self.back, self.last = nn.Conv2d(8, 12, 3, padding=1), nn.GroupNorm(3, 12)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.back(torch.relu(self.two(self.mid(torch.relu(self.one(x))))))
        return self.head(torch.relu(self.last(x)))


class Instances(nn.Module):
    """InstanceNorm between convolutions, a depthwise one among them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 4, 4), nn.InstanceNorm2d(6, affine=True)
        self.deep, self.head = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.deep(torch.relu(self.norm(self.stem(x))))))


class Stream(nn.Module):
    """Patches as steps, one block of two linear layers on a residual stream, both ends normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.wide = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16), nn.Linear(16, 24)
        self.back, self.last, self.head = nn.Linear(24, 16), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.back(torch.relu(self.wide(self.norm(x))))
        return self.head(self.last(x))


# --- GroupNorm and InstanceNorm ---------------------------------------------------------------------------------


def test_channels_that_a_group_norm_takes_together_go_together() -> None:
    """The sum is normalised in 6 groups of 2 and in 3 of 4, so that 4 channels go at once; inside, 4 groups of 2."""
    given = case(Grouped)
    outer, inner = given["stem"], given["mid"]
    four = [tuple(range(start, start + 4)) for start in (0, 4, 8)]
    assert held(outer, "stem") == held(outer, "back") == held(outer, "mid", "in") == held(outer, "y", "in") == four
    assert held(outer, "one") == [(0, 1), (2, 3), (4, 5)]  # as InstanceNorm of the groups, by PyTorch's exporter
    assert held(inner, "mid") == held(inner, "back", "in") == [(0, 1), (2, 3), (4, 5), (6, 7)]


def test_whole_groups_are_removed_as_if_they_were_zero() -> None:
    given = case(Grouped)
    inner = with_zeros(given.network, {"two": [2, 3, 6, 7]})  # a ReLU keeps zeros
    check(given, given.pruned({"mid": [1, 3]}), inner)
    both = with_zeros(given.network, {"two": [0, 1], "one": range(4, 8), "last": range(4, 8)})
    written = check(given, given.pruned({"mid": [0], "stem": [1]}), both)
    shapes = [tuple(tensor.dims) for tensor in written.graph.initializer]
    assert (6, 8, 1, 1) in shapes
    assert (8, 6, 3, 3) in shapes


def test_one_group_for_all_channels_stays_with_the_reason() -> None:
    given = case(lambda: Grouped(groups=6, inner=1))
    assert not any(group.name.startswith("mid") for group in given.groups)
    assert next(why for name, why in given.protected.items() if name.startswith("mid")) == (
        "has channels that can only go all at once: shuffles, splits, sums and normalisation connect them"
    )


def group_norm_file(groups: int = 4) -> onnx.ModelProto:
    """Convolution, GroupNormalization of opset 21, convolution."""
    rng = np.random.default_rng(0)
    weights = {"a": (8, 3, 4, 4), "s": (8,), "b": (8,), "c": (2, 8, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["y"], strides=[4, 4]),
        helper.make_node("GroupNormalization", ["y", "s", "b"], ["n"], num_groups=groups),
        helper.make_node("Conv", ["n", "c"], ["z"]),
    ]
    tensors = [numpy_helper.from_array(rng.standard_normal(w).astype(np.float32), n) for n, w in weights.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])
    made = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 2, 8, 16])
    graph = helper.make_graph(nodes, "g", [given], [made], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_the_operator_of_its_own_loses_groups_too() -> None:
    file = canonicalise(group_norm_file())
    module = to_torch(file)
    groups = find_groups(module, SHAPE)
    assert [(group.name, group.channels) for group in groups] == [("y", 4)]
    removed = {"y": [0, 2]}
    pruned, silent = (make(module, groups, removed) for make in (remove_channels, silence_channels))
    assert isinstance(pruned, torch.fx.GraphModule)
    with torch.no_grad():
        found, wanted = pruned(torch.from_numpy(images())).numpy(), silent(torch.from_numpy(images())).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    written = to_onnx(pruned, file)
    np.testing.assert_allclose(Session(written).run(images()), found, rtol=1e-4, atol=1e-5)
    (node,) = [node for node in written.graph.node if node.op_type == "GroupNormalization"]
    assert {entry.name: entry.i for entry in node.attribute}["num_groups"] == 2


def test_a_group_norm_against_numpy() -> None:
    """Of the channels that are left, by its definition."""
    file = canonicalise(group_norm_file())
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    module = to_torch(file)
    pruned = remove_channels(module, find_groups(module, SHAPE), {"y": [1]})
    x = images().reshape(3, 3, 8, 4, 16, 4)
    made = np.einsum("nchiwj,ocij->nohw", x, weights["a"]).reshape(3, 4, 2 * 8 * 16)[:, [0, 2, 3]]
    normed = (made - made.mean(-1, keepdims=True)) / np.sqrt(made.var(-1, keepdims=True) + 1e-5)
    kept = [0, 1, 4, 5, 6, 7]
    scaled = normed.reshape(3, 6, 8, 16) * weights["s"][kept, None, None] + weights["b"][kept, None, None]
    wanted = np.einsum("nchw,oc->nohw", scaled, weights["c"][:, kept, 0, 0])
    with torch.no_grad():
        np.testing.assert_allclose(pruned(torch.from_numpy(images())).numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_instance_norm_knows_no_other_channel() -> None:
    given = case(Instances)
    assert given["stem"].channels == 6
    check(given, given.pruned({"stem": [0, 5]}), with_zeros(given.network, {"deep": [0, 5]}))


# --- LayerNorm --------------------------------------------------------------------------------------------------


def test_a_residual_stream_stays_unless_asked_for_and_says_how() -> None:
    why = case(Stream).protected["patches_Conv_output_0"]
    assert why.endswith("is a LayerNorm over them, whose mean and variance would change: --layer-norms lets them go")
    stream = case(Stream, layer_norms=True)["patches"]
    assert stream.channels == 16
    assert {layer.split("_")[0] for layer in stream.layers} == {"patches", "back", "norm", "last"}


def layer_norm(x: np.ndarray, norm: nn.LayerNorm, kept: list[int]) -> np.ndarray:
    weight, bias = (tensor.detach().numpy()[kept] for tensor in (norm.weight, norm.bias))
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps) * weight + bias


def test_a_layer_norm_against_numpy() -> None:
    """Mean and variance of the channels that are left."""
    given = case(Stream, layer_norms=True)
    removed = [1, 4, 11, 15]
    kept = [channel for channel in range(16) if channel not in removed]
    net = given.network
    assert isinstance(net, Stream)
    numbers = {name: tensor.detach().double().numpy() for name, tensor in net.named_parameters()}
    patches = images().astype(np.float64).reshape(3, 3, 4, 8, 8, 8)
    x = np.einsum("nchiwj,ocij->nhwo", patches, numbers["patches.weight"][kept]).reshape(3, 32, -1)
    x += numbers["patches.bias"][kept]
    wide = layer_norm(x, net.norm, kept) @ numbers["wide.weight"][:, kept].T + numbers["wide.bias"]
    x = x + np.maximum(wide, 0) @ numbers["back.weight"][kept].T + numbers["back.bias"][kept]
    wanted = layer_norm(x, net.last, kept) @ numbers["head.weight"][:, kept].T + numbers["head.bias"]
    check(given, given.pruned({"patches": removed}), wanted)
    assert np.abs(wanted - with_zeros(net, {"patches": removed, "back": removed})).max() > 0.01  # not silencing them


def test_the_reference_leaves_channels_out() -> None:
    torch.manual_seed(0)
    norm, x = nn.LayerNorm(6), torch.randn(4, 5, 6)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    found = NormOfKept(norm, [0, 3])(x)[..., [1, 2, 4, 5]]
    wanted = nn.functional.layer_norm(x[..., [1, 2, 4, 5]], (4,), norm.weight[[1, 2, 4, 5]], norm.bias[[1, 2, 4, 5]])
    torch.testing.assert_close(found, wanted)


def test_a_norm_coupled_with_the_wrong_channels_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check sees which channels a norm leaves out, though not that its statistics change."""
    monkeypatch.setattr(
        "compress.prune.channels.NormOfKept", lambda norm, gone: NormOfKept(norm, [15 - k for k in gone])
    )
    survey = survey_channels(case(Stream).module, SHAPE, layer_norms=True)
    assert not any(group.name.startswith("patches") for group in survey.groups)


def test_attention_and_its_residual_stream_lose_channels_at_once() -> None:
    given = case(nets.Attended, layer_norms=True)
    rng = np.random.default_rng(0)
    removed = {
        group.name: list(lowest_channels(group, torch.from_numpy(rng.random(group.channels)), group.channels // 2))
        for group in given.groups
    }
    assert any(name.startswith("patches") for name in removed)
    pruned, silent = (make(given.module, given.groups, removed) for make in (remove_channels, silence_channels))
    assert isinstance(pruned, torch.fx.GraphModule)
    with torch.no_grad():
        found, wanted = (module(torch.from_numpy(images())).numpy() for module in (pruned, silent))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Session(to_onnx(pruned, given.file)).run(images()), wanted, rtol=1e-4, atol=1e-5)


def test_a_protected_norm_keeps_the_stream() -> None:
    given = case(Stream, layer_norms=True)
    norm = next(layer for layer in given["patches"].layers if layer.startswith("norm"))
    survey = survey_channels(given.module, SHAPE, protect=[norm], layer_norms=True)
    assert survey.protected["patches_Conv_output_0"] == f"{norm} is to be protected"


def test_a_norm_within_each_head_stays_all_the_same() -> None:
    given = case(lambda: nets.Attended(nets.NormedQueries), layer_norms=True)
    assert not any("block_q" in group.name for group in given.groups)


# --- what is said, and what it brings -----------------------------------------------------------------------------


def test_a_plan_says_whose_statistics_change() -> None:
    given = case(Stream, layer_norms=True)
    network = Network(given.module, given.groups, SHAPE, "l1", 1, "")
    stream, wide = given["patches"].name, given["wide"].name
    plan = plan_ratios(network, {stream: 0.5, wide: 0.5}, target={"ratio": 0.5})
    assert plan.notes == norm_notes(given.module, {stream: given["patches"].layers})
    assert plan.notes[0].startswith(f"{stream}: its channels go through 2 LayerNorms (norm_")
    assert plan_ratios(network, {wide: 0.5}, target={"ratio": 0.5}).notes == ()


@pytest.mark.slow
def test_svtr_loses_more_multiply_adds_with_its_width() -> None:
    """Half of all groups' channels: by hand, what is linear in the stream's width halves once more."""
    shape = (3, 32, 128)
    module = Case(Svtr, shape=shape).module
    left = {}
    for layer_norms in (False, True):
        groups = find_groups(module, shape, layer_norms=layer_norms)
        half = {
            group.name: list(lowest_channels(group, torch.arange(float(group.channels)), group.channels // 2))
            for group in groups
        }
        pruned = remove_channels(module, groups, half)
        left[layer_norms] = module_cost(pruned, shape)[1] / module_cost(module, shape)[1]
    assert left[True] < 0.3 < left[False] < 0.5


def test_shrinking_a_norm() -> None:
    norm = nn.GroupNorm(4, 12)
    shrink_norm(norm, 3)
    assert (norm.num_groups, norm.num_channels) == (3, 9)
    layer = nn.LayerNorm(8)
    shrink_norm(layer, 3)
    assert layer.normalized_shape == (5,)
