"""Channels behind shuffles, splits and attention: found as by hand, removed as if they were zero, also in the file."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

from compress.errors import PlanError
from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.measure.session import Session
from compress.prune import coupling
from compress.prune.channel_scores import score_group
from compress.prune.channels import group_align, kept_outputs, remove_channels, silence_channels
from compress.prune.groups import survey_channels
from compress.prune.importance import CRITERIA
from compress.prune.reconstruct import reconstruct
from tests.prune import coupled_nets as nets
from tests.prune.coupled_cases import SHAPE, case, check, held, images, with_zeros

HEADS, WIDTH = 4, 4


class Halves(nn.Module):
    """Two units of ShuffleNetV2, spelled flat."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.merge, self.head = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for unit in (self.one, self.two):
            left, right = x.chunk(2, 1)
            x = nets.shuffle(torch.cat((left, torch.relu(unit(right))), 1), 2)
        return self.head(torch.relu(self.merge(x)))


class Rolled(nn.Module):
    """Each channel is added to the next one: none can go alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(x + torch.cat((x[:, 1:], x[:, :1]), 1))


@pytest.mark.slow
def test_orbits_of_shuffled_channels_are_those_found_by_hand() -> None:
    """After one unit the channels are a0 y0 a1 y1 a2 y2 a3 y3, so the first half joins the next unit's z in pairs."""
    given = case(Halves)
    twice, once, never = given["stem"], given["stem:2"], given["stem:3"]
    assert (held(twice, "stem"), held(twice, "one"), held(twice, "two")) == (
        [(0,), (1,)],
        [(0,), (1,)],
        [(0, 1), (2, 3)],
    )
    assert (held(once, "stem"), held(once, "one"), held(once, "two", "in")) == (
        [(2,), (3,)],
        [(2,), (3,)],
        [(0, 1), (2, 3)],
    )
    assert (held(never, "stem"), held(never, "one", "in")) == ([(4,), (5,), (6,), (7,)], [(0,), (1,), (2,), (3,)])
    # a0 z0 y0 z1 a1 z2 y1 z3, and the second half as it was
    assert held(twice, "merge", "in") == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert not set(given.protected) & {group.name for group in given.groups}


@pytest.mark.parametrize(
    ("removed", "zeroed"),
    [
        ({"stem": [1]}, {"stem": [1], "one": [1], "two": [2, 3]}),
        ({"stem:2": [0]}, {"stem": [2], "one": [2]}),
        ({"stem:3": [0, 3]}, {"stem": [4, 7]}),
        (
            {"stem": [0], "stem:2": [1], "stem:3": [2], "merge": [5]},
            {"stem": [0, 3, 6], "one": [0, 3], "two": [0, 1], "merge": [5]},
        ),
    ],
    ids=["both units", "first unit", "none", "all"],
)  # fmt: skip
def test_shuffled_channels_are_removed_as_if_they_were_zero(
    removed: dict[str, list[int]], zeroed: dict[str, list[int]]
) -> None:
    given = case(Halves)
    check(given, given.pruned(removed), with_zeros(given.network, zeroed))  # a ReLU behind each keeps zeros


def test_numbers_in_the_file_follow_uneven_halves() -> None:
    given = case(Halves)
    written = to_onnx(given.pruned({"stem:2": [0]}), given.file)
    constants = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in written.graph.initializer}
    slices = [node for node in written.graph.node if node.op_type == "Slice"]
    bounds = [(*constants[node.input[1]], *constants[node.input[2]]) for node in slices]
    assert bounds == [(0, 3), (3, 7), (0, 4), (4, 6)]
    read = {name for node in written.graph.node for name in node.input}
    assert set(constants) <= read


def test_channels_that_only_go_all_at_once_stay_with_the_reason() -> None:
    given = case(Rolled)
    assert given.groups == []
    assert given.protected["stem_Conv_output_0"] == coupling.TOGETHER


@pytest.mark.parametrize("make", [nets.Attended, lambda: nets.Attended(nets.Biased)], ids=["plain", "position bias"])
def test_a_head_is_removed_with_its_queries_keys_and_values(make: Callable[[], nn.Module]) -> None:
    given = case(make)
    heads = given["block.q:heads"]
    assert (heads.channels, heads.blocks) == (HEADS, 1)
    rows = [tuple(range(head * WIDTH, (head + 1) * WIDTH)) for head in range(HEADS)]
    for layer in ("block_q", "block_k", "block_v"):
        assert held(heads, layer) == rows
    assert held(heads, "block_project", "in") == rows
    written = check(
        given, given.pruned({"block.q:heads": [1, 2]}), with_zeros(given.network, {"block.v": range(4, 12)})
    )
    shapes = {tuple(tensor.dims) for tensor in written.graph.initializer}
    assert (16, 8) in shapes  # queries, keys and values
    assert (8, 16) in shapes  # the projection


def test_heads_lose_places_of_their_own_but_as_many_each() -> None:
    given = case(nets.Attended)
    queries, values = given["block.q"], given["block.v"]
    assert (queries.channels, queries.blocks, values.blocks) == (16, HEADS, HEADS)
    assert held(queries, "block_k") == [(place,) for place in range(16)]
    assert [member.layer for member in queries.factors] == ["block_q_MatMul_output_0"]
    assert not values.factors
    lost = [0, 5, 10, 15]
    check(given, given.pruned({"block.q": lost}), with_zeros(given.network, {"block.q": lost}))
    check(given, given.pruned({"block.v": lost}), with_zeros(given.network, {"block.v": lost}))
    with pytest.raises(PlanError, match=r"2 and 1 and 1 and 0 channels removed of its 4 heads\. Remove as many"):
        given.pruned({"block.q": [0, 1, 5, 10]})


def test_heads_and_places_go_together() -> None:
    given = case(nets.Attended)
    queries, values = [0, 3, 4, 5, 10, 11, 14, 15], [2, 7, 8, 13]
    removed = {"block.q": queries, "block.v": values, "block.q:heads": [3]}
    zeroed = {"block.q": queries, "block.v": [*values, 12, 14, 15]}
    written = check(given, given.pruned(removed), with_zeros(given.network, zeroed))
    shapes = [tuple(tensor.dims) for tensor in written.graph.initializer]
    assert shapes.count((16, 3 * 2)) == 2
    assert (16, 3 * 3) in shapes


def test_queries_of_convolutions_are_silent_where_their_batch_norm_is_zero() -> None:
    given = case(nets.ConvAttention)
    assert {group.name.partition("_Conv")[0] for group in given.groups} == {"stem", "q_q_0", "v_v_0", "project"}
    removed = {"q.q.0": [0, 5, 10, 15], "v.v.0": [3, 6, 9, 12], "q.q.0:heads": [2], "stem": [1, 7]}
    zeroed = {"stem": [1, 7], "q": [0, 5, 10, 15], "v": [3, 6, 8, 9, 10, 11, 12]}
    written = check(given, given.pruned(removed), with_zeros(given.network, zeroed))
    assert "Where" in {node.op_type for node in written.graph.node}  # height and width are computed, channels given


def test_sizes_that_are_computed_from_another_layers_channels_do_not_follow_these() -> None:
    """The last Reshape has as many channels as the stem makes, in the file; they are those of the values."""
    given = case(nets.ConvAttention)
    check(given, given.pruned({"stem": [3]}), with_zeros(given.network, {"stem": [3]}))


def test_one_head_of_keys_for_all_lets_all_heads_lose_the_same_places() -> None:
    given = case(lambda: nets.Attended(nets.SharedKeys))
    group = given["block.q"]
    assert held(group, "block_q") == [(place, 4 + place, 8 + place, 12 + place) for place in range(4)]
    assert held(group, "block_k") == [(place,) for place in range(4)]
    check(given, given.pruned({"block.q": [2]}), with_zeros(given.network, {"block.k": [2]}))


def test_a_scale_computed_from_the_width_keeps_the_queries_width_but_not_the_heads() -> None:
    given = case(lambda: nets.Attended(nets.Fused))
    names = {group.name.replace("_MatMul_output_0", "") for group in given.groups}
    assert names == {"block_q:heads", "block_v"}
    check(given, given.pruned({"block.q:heads": [0]}), with_zeros(given.network, {"block.v": range(4)}))


def test_what_is_normalised_in_each_head_stays_with_the_reason() -> None:
    given = case(lambda: nets.Attended(nets.NormedQueries))
    assert "is a LayerNorm" in given.protected["block_q_MatMul_output_0"]
    assert not any("block_q" in group.name for group in given.groups)


def test_a_protected_layer_keeps_all_groups_that_it_is_in() -> None:
    given = case(nets.Attended)
    survey = survey_channels(given.module, SHAPE, protect=["block_k_MatMul_output_0"])
    assert not any("block_k_MatMul_output_0" in group.layers for group in survey.groups)


def test_heads_are_scored_by_all_their_filters_and_places_within_their_head() -> None:
    given, fpgm = case(nets.Attended), CRITERIA["fpgm"]
    layers = [given.module.get_submodule(f"block_{name}_MatMul_output_0").weight for name in "qkv"]
    own = [fpgm(weight.reshape(HEADS, -1)).double() for weight in layers]
    wanted = sum(scores / scores.mean() for scores in own) / 3
    torch.testing.assert_close(score_group(given.module, given["block.q:heads"], fpgm), wanted)
    for head in range(HEADS):
        rows = slice(head * WIDTH, (head + 1) * WIDTH)
        scores = fpgm(layers[2][rows]).double()
        found = score_group(given.module, given["block.v"], fpgm)[rows]
        torch.testing.assert_close(found, scores / scores.mean())


def test_heads_keep_a_multiple_of_align_channels() -> None:
    heads = case(nets.Attended)["block.q:heads"]
    assert [group_align(heads, align) for align in (1, 4, 8, 16)] == [1, 1, 2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "make", [nets.shufflenet_v2, nets.shufflenet_v1, nets.Sliced, nets.AddedParts], ids=["v2", "v1", "sliced", "added"]
)
def test_any_channels_are_removed_exactly(make: Callable[[], nn.Module], seed: int) -> None:
    """Against the network whose readers have zero weights for them; one group alone, too."""
    given, rng = case(make), np.random.default_rng(seed)
    few = given.groups if seed else given.groups[:1]
    removed = {
        group.name: rng.choice(group.channels, rng.integers(0, group.channels) if seed else 1, replace=False).tolist()
        for group in few
    }
    pruned, silent = (make(given.module, given.groups, removed) for make in (remove_channels, silence_channels))
    with torch.no_grad():
        found, wanted = (module(torch.from_numpy(images())).numpy() for module in (pruned, silent))
    assert isinstance(pruned, fx.GraphModule)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Session(to_onnx(pruned, given.file)).run(images()), wanted, rtol=1e-4, atol=1e-5)
    again = to_torch(canonicalise(to_onnx(pruned, given.file)))
    with torch.no_grad():
        np.testing.assert_allclose(again(torch.from_numpy(images())).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_nothing_changes_where_nothing_is_removed() -> None:
    given = case(nets.Attended)
    copy = given.pruned({group: [] for group in ("block.q", "block.v", "block.q:heads")})
    assert to_onnx(copy, given.file) == to_onnx(given.module, given.file)


def test_a_pruned_file_is_reconstructed_though_it_computes_no_sizes() -> None:
    given = case(nets.Attended)
    removed = {"block.q": [0, 5, 10, 15], "block.q:heads": [2]}
    pruned = to_torch(canonicalise(to_onnx(given.pruned(removed), given.file)))
    assert len(pruned.graph.nodes) < len(given.module.graph.nodes)
    kept = kept_outputs(given.module, given.groups, {given[name].name: some for name, some in removed.items()})
    x = torch.from_numpy(images())

    def error() -> float:
        with torch.no_grad():
            return float((pruned(x) - given.module(x)).square().sum())

    before = error()
    solved = reconstruct(given.module, pruned, kept, [images(16)])
    assert {layer.name for layer in solved} >= {"block_project_MatMul_output_0"}
    assert error() < before
