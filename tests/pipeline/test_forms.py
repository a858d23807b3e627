"""Channels are padded where the table predicts a faster network, and only there."""

from collections.abc import Mapping
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from compress.graph import from_torch, to_torch
from compress.graph.lowering import lower_for_int8
from compress.graph.padding import ChannelSet, paddable_sets
from compress.measure.latency_table import LatencyTable
from compress.measure.operator_times import Operator, OperatorTime
from compress.pipeline.stages.forms import choose_padding, padded_form, read_form
from compress.pipeline.stages.placement import able_values
from tests.graph.graphs import assert_same
from tests.quant import nets

SHAPE = nets.SHAPE


def channel_set(name: str, channels: int) -> ChannelSet:
    return ChannelSet(name, channels, (name,), (name,))


class TestChoice:
    def test_only_what_pays(self) -> None:
        """Of 100 ms padding `a` saves 10 and `b` nothing."""
        asked: list[Mapping[str, int]] = []

        def predict(widths: Mapping[str, int]) -> float:
            asked.append(dict(widths))
            return 100.0 - 10.0 * ("a" in widths) + 1.0 * ("b" in widths)

        done: list[tuple[int, int, str]] = []
        groups = [[channel_set("a", 120)], [channel_set("b", 40)]]
        assert choose_padding(groups, predict, lambda *state: done.append(state)) == {"a": 128}
        assert asked == [{}, {"a": 128}, {"a": 128, "b": 48}]
        assert done == [(1, 2, "timing padded channels"), (2, 2, "timing padded channels")]

    @pytest.mark.parametrize(("saved", "expected"), [(0.9, {}), (1.1, {"a": 128})])
    def test_a_gain_of_less_than_one_percent_is_noise(self, saved: float, expected: dict[str, int]) -> None:
        found = choose_padding([[channel_set("a", 120)]], lambda widths: 100.0 - saved * bool(widths))
        assert found == expected

    def test_the_better_of_two_multiples(self) -> None:
        """50 channels fit 7 blocks of 8 or 4 of 16."""
        times = {50: 10.0, 56: 8.0, 64: 9.0}
        assert choose_padding([[channel_set("a", 50)]], lambda widths: times[widths.get("a", 50)]) == {"a": 56}
        times |= {64: 7.0}
        assert choose_padding([[channel_set("a", 50)]], lambda widths: times[widths.get("a", 50)]) == {"a": 64}

    def test_equal_sets_are_padded_together(self) -> None:
        """Each of three saves 0.6 %, which alone would not count."""
        group = [channel_set(name, 24) for name in "abc"]
        assert choose_padding([group], lambda widths: 100.0 - 0.6 * len(widths)) == dict.fromkeys("abc", 32)


class Blocks(nn.Module):
    """Two blocks of 24 channels inside, whose depthwise convolutions an integer kernel in blocks of 16 is slow at."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.expand = nn.ModuleList(nn.Conv2d(16, 24, 1) for _ in range(2))
        self.depth = nn.ModuleList(nn.Conv2d(24, 24, 3, padding=1, groups=24) for _ in range(2))
        self.project = nn.ModuleList(nn.Conv2d(24, 16, 1) for _ in range(2))
        self.last = nn.Conv2d(16, 16, 1)
        self.head = nets.Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for expand, depth, project in zip(self.expand, self.depth, self.project, strict=True):
            x = x + project(torch.relu(depth(torch.relu(expand(x)))))
        return self.head(self.last(x))


def blocks() -> onnx.ModelProto:
    return lower_for_int8(from_torch(nets.initialise(Blocks()), nets.images(1)))


def table(tmp_path: Path, slow: float, wide: float = 1.0) -> LatencyTable:
    """Integer operators take 1 ms, but depthwise ones of uneven channels `slow`, and all of 32 channels `wide`."""

    def measure(operator: Operator, threads: int) -> OperatorTime:
        if operator.precision != "int8":
            return OperatorTime(3.0 if operator.op_type not in ("QuantizeLinear", "DequantizeLinear") else 0.1)
        group, channels = dict(operator.attributes).get("group", 1), operator.inputs[0][1]
        if group > 1 and channels % 16:
            return OperatorTime(slow)
        return OperatorTime(wide if 32 in (channels, *operator.weight) else 1.0)

    return LatencyTable(tmp_path / f"{slow}-{wide}.json", measure=measure)


class TestForms:
    def test_padding_that_pays(self, tmp_path: Path) -> None:
        """Each depthwise convolution is saved 1.5 ms; both sets are alike and are decided on at once."""
        model, messages = blocks(), []
        able, times = able_values(to_torch(model), ()), table(tmp_path, slow=2.5)
        plain = read_form(model, able, SHAPE, times)
        found = padded_form(plain, able, SHAPE, times, lambda *state: messages.append(state))
        assert found is not None
        names = [each.name for each in paddable_sets(model) if each.channels == 24]
        assert len(names) == 2
        assert found.padding == dict.fromkeys(names, (24, 32))
        assert messages[-1] == (1, 1, "timing padded channels")
        assert_same(model, found.model, ((1, *SHAPE), (2, *SHAPE)))
        assert {each.channels for each in paddable_sets(found.model)} == {16, 32}
        assert list(found.costs) == list(plain.costs)

    @pytest.mark.parametrize(("slow", "wide"), [(1.0, 1.0), (2.5, 2.0)])
    def test_padding_that_does_not(self, tmp_path: Path, slow: float, wide: float) -> None:
        """Depthwise convolutions are not slow, or their neighbours lose by it what they gain."""
        model = blocks()
        able, times = able_values(to_torch(model), ()), table(tmp_path, slow, wide)
        assert padded_form(read_form(model, able, SHAPE, times), able, SHAPE, times) is None

    def test_operators_are_timed_once_for_equal_shapes(self, tmp_path: Path) -> None:
        """The candidate changes three operators (and conversions) that both blocks have."""
        model = blocks()
        able, times = able_values(to_torch(model), ()), table(tmp_path, slow=2.5)
        plain = read_form(model, able, SHAPE, times)
        before = times.measured
        padded_form(plain, able, SHAPE, times)
        assert times.measured - before == 3 * 2 + 2  # each in float and in integers; a wide tensor to integers and back
