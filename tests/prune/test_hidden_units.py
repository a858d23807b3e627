"""Hidden units of recurrent layers: found with their readers, and removing them equals holding them at zero."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress import artifacts
from compress.artifacts import PruningPlan
from compress.errors import PlanError
from compress.graph import from_torch, load_model, to_onnx, to_torch
from compress.measure.cost import model_cost, module_cost
from compress.measure.session import Session
from compress.prune.apply import apply_plan
from compress.prune.channel_scores import lowest_channels, score_group
from compress.prune.channels import ChannelGroup, channel_blocks, remove_channels, silence_channels
from compress.prune.groups import find_groups, survey_channels
from compress.prune.importance import CRITERIA
from compress.prune.plan import plan_ratio
from compress.prune.ranking import Network
from tests.prune import nets

SHAPE = (3, 8, 8)
SEED = torch.Generator
MODEL = Path(__file__).parents[3] / "shared" / "data" / "models" / "en_number_mobile_v2.0_rec_infer.onnx"


class Crnn(nn.Module):
    """Conv - recurrent layers - Linear, in the several ways in which people write it."""

    def __init__(
        self,
        kind: type[nn.RNNBase] = nn.LSTM,
        stages: tuple[tuple[int, int, bool, bool], ...] = ((4, 1, True, True),),
        *,
        batch_first: bool = False,
        embed: bool = False,
        skip: bool = False,
    ) -> None:
        """Each stage is (units, layers, bidirectional, bias); `embed`: a Linear behind each; `skip`: see forward."""
        super().__init__()
        self.conv = nn.Conv2d(3, 6, (8, 3), padding=(0, 1))
        self.batch_first, self.skip = batch_first, skip
        self.rnns, self.embeds = nn.ModuleList(), nn.ModuleList()
        width = 6
        for units, layers, both, bias in stages:
            self.rnns.append(kind(width, units, layers, bidirectional=both, bias=bias, batch_first=batch_first))
            width = units * (2 if both else 1)
            self.embeds.append(nn.Linear(width, 5) if embed else nn.Identity())
            width = 5 if embed else width
        self.fc = nn.Linear(width + (6 if skip else 0), 7)

    def forward(self, x: Tensor) -> Tensor:
        """`skip`: what the convolution computes is read by the last Linear as well."""
        steps = torch.relu(self.conv(x)).mean(2).permute((0, 2, 1) if self.batch_first else (2, 0, 1))
        y = steps
        for rnn, embed in zip(self.rnns, self.embeds, strict=True):
            y = embed(rnn(y)[0])
        return torch.softmax(self.fc(torch.cat([steps, y], 2) if self.skip else torch.tanh(y)), dim=2)


def held_at_zero(module: nn.Module, groups: list[ChannelGroup], removed: dict[str, list[int]]) -> nn.Module:
    """The same network with all rows of those units at zero: by hand, gate by gate."""
    held = copy.deepcopy(module)
    for group in groups:
        rnn = held.get_submodule(group.name)
        if not isinstance(rnn, nn.RNNBase):
            continue
        both = 2 if rnn.bidirectional else 1
        for channel in removed[group.name]:
            block, unit = divmod(channel, rnn.hidden_size)
            layer, reverse = rnn.num_layers - 1 - block // both, block % both
            for name, weight in rnn.named_parameters():
                if name.endswith(f"_l{layer}{'_reverse' if reverse else ''}"):
                    with torch.no_grad():
                        weight[unit :: rnn.hidden_size] = 0.0
    return held


def units_of(module: nn.Module, shape: tuple[int, int, int] = SHAPE) -> list[ChannelGroup]:
    return [g for g in find_groups(module, shape) if isinstance(module.get_submodule(g.name), nn.RNNBase)]


def some_units(groups: list[ChannelGroup], share: float, seed: int = 0) -> dict[str, list[int]]:
    """Other units in each direction, as many."""
    generator = SEED().manual_seed(seed)
    return {
        group.name: list(
            lowest_channels(group, torch.rand(group.channels, generator=generator), int(share * group.channels))
        )
        for group in groups
    }


def drawn(kinds: tuple[type[nn.RNNBase], ...], layers: int) -> st.SearchStrategy[nn.Module]:
    stage = st.tuples(st.integers(2, 6), st.integers(1, layers), st.booleans(), st.booleans())
    return st.builds(
        lambda kind, stages, batch_first, embed, skip, seed: nets.initialise(
            Crnn(kind, tuple(stages), batch_first=batch_first, embed=embed, skip=skip), seed
        ),
        st.sampled_from(kinds),
        st.lists(stage, min_size=1, max_size=2),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.integers(0, 100),
    )


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(module=drawn((nn.LSTM, nn.GRU, nn.RNN), 2), share=st.floats(0.0, 1.0), seed=st.integers(0, 99))
def test_pruned_equals_units_held_at_zero(module: nn.Module, share: float, seed: int) -> None:
    groups = units_of(module)
    assert {group.name for group in groups} == {f"rnns.{index}" for index in range(len(module.rnns))}
    removed = some_units(groups, share, seed)
    pruned = remove_channels(module, groups, removed)
    x = torch.randn(2, *SHAPE, generator=SEED().manual_seed(seed))
    with torch.no_grad():
        output = pruned(x)
        torch.testing.assert_close(output, held_at_zero(module, groups, removed)(x), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(output, silence_channels(module, groups, removed)(x), rtol=1e-5, atol=1e-6)
    for group in groups:
        before, after = module.get_submodule(group.name), pruned.get_submodule(group.name)
        assert after.hidden_size == before.hidden_size - len(removed[group.name]) // group.blocks


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(module=drawn((nn.LSTM, nn.GRU), 2), share=st.floats(0.2, 1.0), seed=st.integers(0, 99))
def test_the_pruned_file_equals_the_file_with_units_held_at_zero(module: nn.Module, share: float, seed: int) -> None:
    template = from_torch(module, torch.zeros(1, *SHAPE))
    imported = to_torch(template)
    layers = sum(rnn.num_layers for rnn in module.rnns)
    groups = units_of(imported)
    assert len(groups) == layers
    removed = some_units(groups, share, seed)
    pruned = to_onnx(remove_channels(imported, groups, removed), template)
    held = to_onnx(held_at_zero(imported, groups, removed), template)
    for batch, width in ((1, 8), (3, 13)):
        x = torch.randn(batch, 3, 8, width, generator=SEED().manual_seed(seed)).numpy()
        np.testing.assert_allclose(Session(pruned).run(x), Session(held).run(x), rtol=1e-4, atol=1e-6)


def test_a_unit_with_zero_rows_stays_at_zero() -> None:
    """What the equality rests on: held at zero is what zero rows do, in every kind of layer, from the first step on."""
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        module = nets.initialise(Crnn(kind, ((4, 2, True, True),)))
        groups = units_of(module)
        rnn = held_at_zero(module, groups, {"rnns.0": [1, 6, 8, 14]}).get_submodule("rnns.0")
        outputs = rnn(torch.randn(5, 2, 6, generator=SEED().manual_seed(0)))[0]
        assert torch.equal(outputs[..., [1, 6]], torch.zeros(5, 2, 2))
        assert bool((outputs[..., [0, 2, 3, 4, 5, 7]] != 0).all())


def test_both_directions_lie_side_by_side_in_the_reader() -> None:
    group = units_of(nets.initialise(Crnn(stages=((4, 1, True, True), (3, 1, False, True)))))[0]
    assert (group.name, group.channels, group.blocks, group.layers) == ("rnns.0", 8, 2, ("rnns.0",))
    assert channel_blocks(group) == [range(0, 4), range(4, 8)]
    own, reader = group.members
    assert (own.layer, own.side, reader.layer, reader.side) == ("rnns.0", "out", "rnns.1", "in")
    assert reader.indices == tuple((channel,) for channel in range(8))


def test_units_beside_other_features_are_found_where_they_lie() -> None:
    group = units_of(nets.initialise(Crnn(stages=((3, 1, False, True),), skip=True)))[0]
    assert group.members[1].indices == ((6,), (7,), (8,))


def test_groups_come_in_the_order_they_run_and_can_be_left_out() -> None:
    module = nets.initialise(Crnn(stages=((4, 1, True, True), (3, 1, True, True)), embed=True))
    assert [group.name for group in find_groups(module, SHAPE)] == ["conv", "rnns.0", "embeds.0", "rnns.1", "embeds.1"]
    survey = survey_channels(module, SHAPE, recurrent=False)
    assert [group.name for group in survey.groups] == ["conv", "embeds.0", "embeds.1"]
    assert "recurrent" in survey.protected["rnns.1"]


def test_the_last_state_is_followed_as_well_as_the_steps() -> None:
    class LastState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.LSTM(24, 5, bidirectional=True), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.rnn(x.flatten(1, 2).permute(2, 0, 1))[1][0]
            return self.fc(torch.cat([hidden[1], hidden[0]], dim=1))

    module = nets.initialise(LastState())
    template = from_torch(module, torch.zeros(1, *SHAPE))
    for network in (module, to_torch(template)):
        groups = units_of(network)
        assert groups[0].members[1].indices == tuple((place,) for place in (5, 6, 7, 8, 9, 0, 1, 2, 3, 4))
        removed = some_units(groups, 0.5)
        x = torch.randn(2, *SHAPE)
        with torch.no_grad():
            expected = held_at_zero(network, groups, removed)(x)
            torch.testing.assert_close(remove_channels(network, groups, removed)(x), expected)


class Behind(nn.Module):
    """An LSTM (or what is given) and a Linear, with something between."""

    def __init__(self, between: str, rnn: nn.RNNBase | None = None, reads: int = 8) -> None:
        super().__init__()
        self.between = between
        self.rnn = rnn or nn.LSTM(24, 4, bidirectional=True)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(reads, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.flatten(1, 2).permute(2, 0, 1)
        state = (torch.ones(2, x.shape[0], 4), torch.ones(2, x.shape[0], 4))
        y = self.rnn(steps, state)[0] if self.between == "state" else self.rnn(steps)[0]
        if self.between == "branch":
            y = y if y.sum() > 0 else -y
        if self.between == "norm":
            y = self.norm(y)
        if self.between == "sum":
            y = y[..., :4] + y[..., 4:]
        if self.between == "mean":
            y = y.mean(0)
        if self.between == "fixed":
            y = y.reshape(-1, 8)
        if self.between == "forward":
            y = y[..., :4]
        if self.between == "one":
            y = y[..., 1:3]
        if self.between == "steps":
            y = y.transpose(1, 2).reshape(y.shape[1], -1, 8)
        if self.between == "turned":
            y = y.mT.transpose(1, 2)
        return y if self.between == "output" else self.fc(y)


PROTECTED = {
    "output": (Behind("output"), "defines the output"),
    "branch": (Behind("branch"), "torch.fx cannot follow"),
    "state": (Behind("state"), "initial state"),
    "norm": (Behind("norm"), "LayerNorm"),
    "sum": (Behind("sum", reads=4), "add"),
    "mean": (Behind("mean"), "mean"),
    "turned": (Behind("turned"), "getattr"),
    "forward": (Behind("forward", reads=4), "more than their own contribution"),
    "one": (Behind("one", reads=2), "fc reads only some"),
    "steps": (Behind("steps"), "different places at each step"),
    "projection": (Behind("", nn.LSTM(24, 6, bidirectional=True, proj_size=4)), "projects"),
    "single": (Behind("", nn.LSTM(24, 1, bidirectional=True), reads=2), "single unit"),
    "fixed": (Behind("fixed"), "more than their own contribution"),
}


@pytest.mark.parametrize("case", PROTECTED)
def test_units_that_cannot_be_followed_stay_with_the_reason(case: str) -> None:
    module, reason = PROTECTED[case]
    survey = survey_channels(nets.initialise(module), SHAPE)
    assert survey.groups == []
    assert reason in survey.protected["rnn"]


def test_named_layers_keep_their_units() -> None:
    module = nets.initialise(Crnn())
    survey = survey_channels(module, SHAPE, protect=["rnns.0"])
    assert [group.name for group in survey.groups] == ["conv"]
    assert survey.protected["rnns.0"] == "rnns.0 is to be protected"


@pytest.mark.parametrize("training", [True, False])
def test_finding_leaves_the_module_as_it_was(training: bool) -> None:
    module = nets.initialise(Crnn()).train(training)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    find_groups(module, SHAPE)
    assert module.training is training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_directions_must_lose_as_many_units() -> None:
    module = nets.initialise(Crnn())
    groups = units_of(module)
    with pytest.raises(PlanError, match=r"'rnns.0': 2 and 1 channels removed of its 2 directions\. Remove as many"):
        remove_channels(module, groups, {"rnns.0": [0, 1, 4]})
    with pytest.raises(PlanError, match="all 8 channels removed"):
        remove_channels(module, groups, {"rnns.0": range(8)})


@pytest.mark.parametrize("criterion", CRITERIA)
def test_units_are_scored_by_their_rows_of_all_gates_in_each_direction_by_itself(criterion: str) -> None:
    module = nets.initialise(Crnn(nn.GRU, ((3, 1, True, True),)))
    (group,) = units_of(module)
    rnn, expected = module.rnns[0], []
    for suffix in ("", "_reverse"):
        units = [
            torch.cat([weight[unit::3].flatten() for weight in (getattr(rnn, f"weight_{k}_l0{suffix}") for k in kinds)])
            for unit in range(3)
            for kinds in [("ih", "hh")]
        ]
        scores = CRITERIA[criterion](torch.stack(units)).double()
        expected.append(scores / scores.mean())
    torch.testing.assert_close(score_group(module, group, CRITERIA[criterion]), torch.cat(expected), rtol=1e-5, atol=0)


def test_each_direction_gives_up_its_own_lowest_units() -> None:
    (group,) = units_of(nets.initialise(Crnn()))
    scores = torch.tensor([4.0, 3.0, 2.0, 1.0, 8.0, 5.0, 6.0, 7.0])
    assert lowest_channels(group, scores, 4) == (2, 3, 5, 6)
    assert lowest_channels(group, scores, 2) == (3, 5)


def test_a_plan_counts_units_per_direction_and_is_carried_out_as_stored(tmp_path: Path) -> None:
    module = nets.initialise(Crnn(stages=((12, 1, True, True), (4, 1, True, True))))
    groups = find_groups(module, SHAPE)
    plan = plan_ratio(Network(module, groups, SHAPE, align=4), 0.4)
    assert len(plan.groups["rnns.0"].removed) == 2 * 4  # 12 * 0.6 = 7.2 units of each direction, rounded up to 8
    assert plan.groups["rnns.1"].removed == ()
    assert plan.groups["rnns.1"].note.endswith("is not below its 4 units per direction")
    artifacts.save(plan, tmp_path / "plan.json")
    pruned = apply_plan(module, artifacts.load(PruningPlan, tmp_path / "plan.json"), SHAPE)
    assert [(rnn.input_size, rnn.hidden_size) for rnn in pruned.rnns] == [(4, 8), (16, 4)]
    assert module_cost(pruned, SHAPE) == (plan.params_after, plan.macs_after)
    steps = 8
    recurrent = steps * 2 * 4 * (8 * (4 + 8) + 4 * (16 + 4))  # two directions, four gates
    assert plan.macs_after == steps * (4 * 3 * 8 * 3) + recurrent + steps * 8 * 7


def test_align_is_held_against_the_units_of_one_direction() -> None:
    module = nets.initialise(Crnn(stages=((12, 1, True, True),)))
    network = Network(module, units_of(module), SHAPE, align=16)
    with pytest.raises(PlanError, match="the widest has 12 channels"):
        plan_ratio(network, 0.3)
    assert len(plan_ratio(replace(network, align=8), 0.3).groups["rnns.0"].removed) == 2 * 4
    assert len(plan_ratio(replace(network, align=5), 0.3).groups["rnns.0"].removed) == 2 * 2


@pytest.mark.slow
@pytest.mark.skipif(not MODEL.is_file(), reason="needs the PP-OCR models in ../shared/data/models")
def test_the_deployed_recogniser_loses_units_exactly_and_runs_at_any_size() -> None:
    shape = (3, 32, 320)
    template = load_model(MODEL)
    module = to_torch(template)
    groups = units_of(module, shape)
    assert [(group.channels, group.blocks) for group in groups] == [(96, 2), (96, 2)]
    plan = plan_ratio(Network(module, groups, shape), 0.3)
    removed = {name: list(group.removed) for name, group in plan.groups.items()}
    pruned = apply_plan(module, plan, shape)
    assert [pruned.get_submodule(group.name).hidden_size for group in groups] == [34, 34]
    held = held_at_zero(module, groups, removed)
    written, held_file = Session(to_onnx(pruned, template)), Session(to_onnx(held, template))
    for batch, width in ((1, 320), (3, 100)):
        x = torch.randn(batch, 3, 32, width, generator=SEED().manual_seed(0))
        with torch.no_grad():
            np.testing.assert_allclose(pruned(x).numpy(), held(x).numpy(), atol=1e-5)
        np.testing.assert_allclose(written.run(x.numpy()), held_file.run(x.numpy()), atol=1e-5)
    cost = model_cost(to_onnx(pruned, template), shape, 0)
    assert (cost.params, cost.macs) == module_cost(pruned, shape)
