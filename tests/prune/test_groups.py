"""Groups of coupled channels: found as they are, protected where they define the output, exact when pruned."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.errors import ModelError, PlanError
from compress.graph import from_torch, to_torch
from compress.prune import channel_dependencies, exactness
from compress.prune.channel_scores import lowest_channels
from compress.prune.channels import remove_channels, silence_channels
from compress.prune.groups import find_groups, survey_channels
from tests.fuzzing.inputs import Reader, Rich
from tests.prune import coupled_nets, nets

SHAPE = (3, 8, 8)


@dataclass(frozen=True)
class Coupled:
    """What is known of a group by reading the network: its layers, and who reads it at which input channels."""

    channels: int
    layers: set[str]
    readers: dict[str, Any] = field(default_factory=dict)
    """Layer -> its input indices for a channel."""


def same(channel: int) -> list[int]:
    return [channel]


NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Coupled]]] = {
    "plain": (
        nets.Plain,
        {
            "conv1": Coupled(6, {"conv1", "bn1"}, {"conv2": same}),
            "conv2": Coupled(8, {"conv2"}, {"fc": same}),
        },
    ),
    "residual": (
        nets.Residual,
        {
            "stem": Coupled(8, {"stem", "block1", "bn", "block2"}, {"expand1": same, "block2": same, "head": same}),
            "expand1": Coupled(12, {"expand1"}, {"block1": same}),
        },
    ),
    "squeeze-excite": (
        nets.SqueezeExcite,
        {
            "stem": Coupled(8, {"stem", "project"}, {"expand": same, "head": same}),
            "expand": Coupled(16, {"expand", "bn1", "depthwise", "bn2", "se2"}, {"se1": same, "project": same}),
            "se1": Coupled(4, {"se1"}, {"se2": same}),
        },
    ),
    "concat": (
        nets.Concat,
        {
            "down1": Coupled(6, {"down1"}, {"down2": same, "merge": same}),
            "down2": Coupled(10, {"down2"}, {"merge": lambda channel: [6 + channel]}),
            "merge": Coupled(8, {"merge"}, {"up": same}),
            "up": Coupled(4, {"up"}, {"last": same}),
        },
    ),
    "flattened": (
        nets.Flattened,
        {
            "conv": Coupled(5, {"conv"}, {"hidden": lambda channel: [4 * channel + k for k in range(4)]}),
            "hidden": Coupled(9, {"hidden"}, {"fc": same}),
        },
    ),
    "recurrent": (nets.Recurrent, {"conv": Coupled(7, {"conv"}, {"rnn": same})}),
    "grouped": (
        nets.Grouped,
        {
            "conv1": Coupled(4, {"conv1"}, {"grouped": lambda channel: [channel, 4 + channel]}),
            "grouped": Coupled(4, {"grouped"}, {"conv2": lambda channel: [channel, 4 + channel]}),
            "conv2": Coupled(6, {"conv2"}, {"head": same}),
        },
    ),
    "constants": (nets.WithConstants, {"conv": Coupled(6, {"conv", "prelu"}, {"head": same})}),
}


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, dict[str, Coupled]]:
    kind, expected = NETWORKS[request.param]
    return nets.initialise(kind()), expected


def masked_output(module: nn.Module, expected: dict[str, Coupled], removed: dict[str, list[int]], x: Tensor) -> Tensor:
    """The full network, with the removed channels cut off by hand at the inputs of the layers that read them."""
    blocked: dict[str, list[int]] = {}
    for name, channels in removed.items():
        for reader, places in expected[name].readers.items():
            blocked.setdefault(reader, []).extend(place for channel in channels for place in places(channel))

    def block(indices: list[int], dim: int) -> Any:
        return lambda _, inputs: (inputs[0].index_fill(dim, torch.tensor(indices), 0.0), *inputs[1:])

    hooks = []
    for reader, indices in blocked.items():
        layer = module.get_submodule(reader)
        dim = -1 if isinstance(layer, nn.Linear | nn.RNNBase) else 1
        hooks.append(layer.register_forward_pre_hook(block(indices, dim)))
    with torch.no_grad():
        output: Tensor = module(x)
    for hook in hooks:
        hook.remove()
    return output


def test_finds_each_coupled_group_once_in_order(network: tuple[nn.Module, dict[str, Coupled]]) -> None:
    module, expected = network
    groups = find_groups(module, SHAPE, recurrent=False)
    assert [group.name for group in groups] == list(expected)
    assert {group.name: group.channels for group in groups} == {name: c.channels for name, c in expected.items()}
    assert {group.name: set(group.layers) for group in groups} == {name: c.layers for name, c in expected.items()}
    for group in groups:
        assert group.layers[0] == group.name
        readers = {member.layer: member.indices for member in group.members if member.side == "in"}
        assert readers == {
            layer: tuple(tuple(places(channel)) for channel in range(group.channels))
            for layer, places in expected[group.name].readers.items()
        }


def test_the_pruned_network_equals_the_one_with_those_channels_cut_off_by_hand(
    network: tuple[nn.Module, dict[str, Coupled]],
) -> None:
    module, expected = network
    removed = {name: list(range(0, coupled.channels, 2)) for name, coupled in expected.items()}
    x = torch.randn(2, *SHAPE)
    pruned = remove_channels(module, find_groups(module, SHAPE), removed)
    with torch.no_grad():
        torch.testing.assert_close(pruned(x), masked_output(module, expected, removed, x), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(pruned(x), module(x), rtol=1e-3)


def test_removing_nothing_is_bit_exact(network: tuple[nn.Module, dict[str, Coupled]]) -> None:
    module, expected = network
    copy = remove_channels(module, find_groups(module, SHAPE), {name: [] for name in expected})
    x = torch.randn(2, *SHAPE)
    assert torch.equal(copy(x), module(x))


def test_finding_leaves_the_module_as_it_was(network: tuple[nn.Module, dict[str, Coupled]]) -> None:
    module, _ = network
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    flags = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    find_groups(module, SHAPE)
    assert module.training
    assert {name: parameter.requires_grad for name, parameter in module.named_parameters()} == flags
    assert list(module.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(module=nets.drawn_networks(), seed=st.integers(0, 1000), share=st.floats(0.0, 1.0))
def test_random_networks_are_pruned_exactly(module: nn.Module, seed: int, share: float) -> None:
    survey = survey_channels(module, SHAPE)
    assert set(survey.protected.values()) == {"defines the output"}
    assert any("stem" in group.layers for group in survey.groups)
    generator = torch.Generator().manual_seed(seed)
    removed = {
        group.name: lowest_channels(group, torch.rand(group.channels, generator=generator), int(share * group.channels))
        for group in survey.groups
    }
    x = torch.randn(2, *SHAPE, generator=generator)
    pruned = remove_channels(module, survey.groups, removed)
    silent = silence_channels(module, survey.groups, removed)
    with torch.no_grad():
        torch.testing.assert_close(pruned(x), silent(x), rtol=1e-4, atol=1e-5)
    for group in survey.groups:
        assert pruned.get_submodule(group.name).weight.shape[0] == group.channels - len(removed[group.name])


def test_a_concatenation_that_is_added_to_couples_both_its_parts() -> None:
    module = nets.initialise(nets.Drawn(2, [("dense", 3), ("residual", 4)]))
    group = find_groups(module, SHAPE)[-1]
    assert (group.name, group.channels) == ("blocks.1.2", 5)
    assert set(group.layers) == {"stem", "blocks.0", "blocks.1.2"}
    with pytest.raises(PlanError, match="all 2 channels of a layer removed"):
        remove_channels(module, [group], {"blocks.1.2": [0, 1]})


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_units_stay_where_not_asked_for_and_the_input_follows(kind: type[nn.RNNBase], layers: int) -> None:
    module = nets.initialise(nets.Recurrent(kind, layers))
    survey = survey_channels(module, SHAPE, recurrent=False)
    assert [group.name for group in survey.groups] == ["conv"]
    assert "recurrent" in survey.protected["rnn"]
    pruned = remove_channels(module, survey.groups, {"conv": [1, 4]})
    silent = silence_channels(module, survey.groups, {"conv": [1, 4]})
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(pruned(x), silent(x), rtol=1e-5, atol=1e-6)
    assert pruned.rnn.input_size == 5


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nets.Plain(), "fc"),
        (nets.Residual(), "head"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5), nn.Sigmoid()), "2"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "2"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 5, 3, groups=5)), "2"),
    ],
    ids=["softmax", "plain", "batch norm and sigmoid", "pooled", "depthwise"],
)
def test_channels_that_define_the_output_are_protected(module: nn.Module, name: str) -> None:
    survey = survey_channels(nets.initialise(module), SHAPE)
    assert survey.protected == {name: "defines the output"}


def test_both_summands_of_an_output_are_protected() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            return torch.softmax(self.a(x) + self.b(x), dim=1)

    survey = survey_channels(nets.initialise(Sum()), SHAPE)
    assert [group.name for group in survey.groups] == ["stem"]
    assert survey.protected == {"a": "defines the output"}


def test_every_output_of_several_is_protected() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.relu(self.stem(x))
            return self.a(x), torch.sigmoid(self.b(x))

    survey = survey_channels(nets.initialise(Two()), SHAPE)
    assert [group.name for group in survey.groups] == ["stem"]
    assert set(survey.protected) == {"a", "b"}


def test_named_layers_are_protected_with_their_whole_group() -> None:
    survey = survey_channels(nets.initialise(nets.Residual()), SHAPE, protect=["block2"])
    assert [group.name for group in survey.groups] == ["expand1"]
    assert survey.protected["stem"] == "block2 is to be protected"


def test_protecting_an_unknown_layer_names_the_nearest() -> None:
    with pytest.raises(PlanError, match=r"protect: got 'blok1'\. .* Did you mean 'block1'\?"):
        find_groups(nets.Residual(), SHAPE, protect=["blok1"])


def test_the_groups_of_a_convolution_stay_equal() -> None:
    module = nets.initialise(nets.Grouped())
    pruned = remove_channels(module, find_groups(module, SHAPE), {"conv1": [1], "grouped": [0, 3]})
    layer = pruned.get_submodule("grouped")
    assert (layer.in_channels, layer.out_channels, layer.groups) == (6, 4, 2)
    assert layer.weight.shape == (4, 3, 3, 3)


def test_groups_of_a_channel_each_stay_with_the_reason() -> None:
    """Two filters for each channel: a channel could only go with its whole group."""
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 2, 1)
    survey = survey_channels(nets.initialise(nn.Sequential(*layers)), SHAPE)
    assert [group.name for group in survey.groups] == ["2"]
    assert "2 is a convolution in 4 groups" in survey.protected["0"]


def test_channels_that_lead_to_nothing_but_numbers_are_protected() -> None:
    class Numbered(nets.Plain):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).argmax(1)

    survey = survey_channels(nets.initialise(Numbered()), SHAPE)
    assert survey.groups == []
    assert set(survey.protected) == {"conv1", "conv2", "fc"}
    assert "operators without a gradient" in survey.protected["conv1"]


def test_channels_that_cannot_be_followed_are_protected_not_pruned_wrongly() -> None:
    survey = survey_channels(nets.initialise(nets.Shuffled()), SHAPE)
    assert [group.name for group in survey.groups] == ["conv2"]
    assert "change more than their own contribution" in survey.protected["conv1"]


@pytest.mark.parametrize("network", [nets.Regrouped, nets.ShuffledTwice])
def test_only_the_channels_that_torch_pruning_fails_on_are_protected(network: type[nn.Module]) -> None:
    survey = survey_channels(nets.initialise(network()), SHAPE)
    assert [group.name for group in survey.groups] == ["conv2"]
    assert survey.protected["head"] == "defines the output"
    assert survey.protected["conv1"] == channel_dependencies.UNFOLLOWED


def test_channels_numbered_beyond_a_layers_end_are_protected() -> None:
    survey = survey_channels(nets.initialise(Rich()), (3, 16, 32))
    assert [group.name for group in survey.groups] == ["squeeze", "merge"]


def test_channels_that_become_too_many_to_number_are_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where maps are flattened and put in a row torch-pruning numbered billions of channels: it never ended."""
    monkeypatch.setattr(channel_dependencies, "_MOST_NUMBERED", 15)
    survey = survey_channels(nets.initialise(nets.Flattened()), SHAPE)
    assert [group.name for group in survey.groups] == ["hidden"]
    assert survey.protected["conv"] == channel_dependencies.UNFOLLOWED


def test_heads_that_flatten_maps_in_a_row_let_their_channels_go() -> None:
    survey = survey_channels(nets.initialise(coupled_nets.Anchors()), (3, 64, 64))
    assert [group.name for group in survey.groups] == ["first.0", "second.0", "heads.0.0.0", "heads.1.0.0"]


def test_few_wrong_groups_among_many_are_found_in_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """31 convolutions in a row, of which one is read in another order: halves are tried, not each."""
    layers = [nn.Conv2d(3, 8, 1), *(nn.Conv2d(8, 8, 1) for _ in range(30)), nn.Conv2d(8, 2, 1)]
    module = nets.initialise(nn.Sequential(*layers))
    found = find_groups(module, SHAPE)
    assert len(found) == 31
    made, read = found[12].members
    wrong = replace(found[12], members=(made, replace(read, indices=read.indices[::-1])))
    tries = []
    compare = exactness._is_exact
    monkeypatch.setattr(exactness, "_is_exact", lambda *args, **kw: tries.append(args) or compare(*args, **kw))
    assert exactness.exact_groups(module, SHAPE, [*found[:12], wrong, *found[13:]]) == [*found[:12], *found[13:]]
    assert len(tries) < 15


def test_nothing_is_printed_where_a_try_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """An fx module prints its source when it fails, and torch-pruning tries an image without its batch first."""
    assert survey_channels(to_torch(from_torch(Reader(), torch.zeros(1, 3, 16, 64))), (3, 16, 64)).groups
    shuffled = from_torch(nets.initialise(nets.Shuffled()), torch.zeros(1, *SHAPE))
    survey_channels(to_torch(shuffled), SHAPE)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_network_that_computes_nan_is_protected() -> None:
    module = nets.initialise(nets.Plain())
    assert isinstance(module, nets.Plain)
    with torch.no_grad():
        module.conv1.weight[0] = float("nan")
    assert survey_channels(module, SHAPE).groups == []


def test_a_network_that_torch_pruning_cannot_trace_is_protected_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("grad_fn")

    monkeypatch.setattr(channel_dependencies.torch_pruning.DependencyGraph, "build_dependency", fail)
    survey = survey_channels(nets.initialise(nets.Plain()), SHAPE)
    assert survey.groups == []
    assert survey.protected.keys() == {"conv1", "conv2", "fc"}
    assert survey.protected["fc"] == channel_dependencies.UNFOLLOWED


def test_a_network_that_does_not_run_on_such_an_image() -> None:
    with pytest.raises(ModelError, match=r"on an image of 3 x 8 x 13 \(RuntimeError: mat1.*Check the input"):
        survey_channels(nets.Flattened(), (3, 8, 13))


def test_channels_that_are_normalised_together_are_protected() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    assert "normalises channels" in survey_channels(nets.initialise(module), SHAPE).protected["0"]


def test_channels_added_to_the_image_are_protected() -> None:
    class OnImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x + self.conv(x))

    survey = survey_channels(nets.initialise(OnImage()), SHAPE)
    assert survey.groups == []
    assert "conv" in survey.protected
