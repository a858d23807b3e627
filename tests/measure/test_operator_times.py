"""Single operators: which kernels they become, how their times are told apart, and one real measurement."""

from dataclasses import replace

import pytest

from compress.errors import ModelError
from compress.measure.kernel_times import Kernel, profile
from compress.measure.micro_model import END, random_feeds
from compress.measure.operator_times import (
    Operator,
    classify,
    faster_mean,
    measure_operator,
    operator_model,
    profiler_ms,
)

CONV = Operator("Conv", ((1, 16, 8, 8),), (16, 16, 1, 1))
SHAPE = (1, 16, 8, 8)


def kernel_types(operator: Operator) -> list[str]:
    """Types of the kernels that an operator becomes, layout changes and what only ends the model left out."""
    model = operator_model(operator)
    kernels = profile(model, random_feeds(model), warmup=1, runs=(1, 1))
    skipped = ("Transpose", "ReorderInput", "ReorderOutput")
    return [k.op_type for k in kernels if k.name != END and k.op_type not in skipped]


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (CONV, ["QLinearConv"]),
        (replace(CONV, activation="Relu"), ["QLinearConv"]),
        (replace(CONV, activation="Clip6"), ["QLinearConv"]),
        (replace(CONV, activation="HardSwish"), ["QLinearConv", "QLinearAdd", "QLinearMul"]),
        (Operator("Conv", (SHAPE,), (16, 1, 3, 3), (("group", 16), ("pads", (1, 1, 1, 1)))), ["QLinearConv"]),
        (Operator("Gemm", ((1, 16),), (5, 16), (("transB", 1),)), ["QGemm"]),
        (Operator("Gemm", ((1, 16),), (16, 5)), ["QGemm"]),
        (Operator("MatMul", ((4, 16),), (16, 5)), ["QLinearMatMul"]),
        (Operator("Add", (SHAPE, SHAPE)), ["QLinearAdd"]),
        (Operator("Add", (SHAPE,), (16, 1, 1)), ["QLinearAdd"]),
        (Operator("Mul", (SHAPE, (1, 16, 1, 1))), ["QLinearMul"]),
        (Operator("Concat", (SHAPE, SHAPE), (), (("axis", 1),)), ["QLinearConcat"]),
        (Operator("HardSwish", (SHAPE,)), ["QLinearAdd", "QLinearMul"]),
        (Operator("GlobalAveragePool", (SHAPE,)), ["QLinearGlobalAveragePool"]),
        (Operator("MaxPool", (SHAPE,), (), (("kernel_shape", (2, 2)),)), ["MaxPool"]),
        (Operator("Resize", (SHAPE,), (), (("mode", "nearest"), ("scales", (1.0, 1.0, 2.0, 2.0)))), ["Resize"]),
        (Operator("DepthToSpace", (SHAPE,), (), (("blocksize", 2),)), ["DepthToSpace"]),
        (Operator("Slice", (SHAPE,), (), (("axes", (1,)), ("ends", (8,)), ("starts", (0,)))), ["Slice"]),
    ],
    ids=lambda value: (
        "-".join(filter(None, (value.op_type, value.activation))) if isinstance(value, Operator) else None
    ),
)
def test_in_integers_an_operator_has_integer_kernels_alone(operator: Operator, expected: list[str]) -> None:
    assert kernel_types(replace(operator, precision="int8")) == expected


@pytest.mark.parametrize("activation", ["Relu", "Clip6", "HardSigmoid", "HardSwish"])
def test_in_float_an_activation_runs_within_the_convolution(activation: str) -> None:
    assert kernel_types(replace(CONV, activation=activation)) in (["Conv"], ["FusedConv"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "operator",
    [
        Operator("ConvTranspose", (SHAPE,), (16, 4, 2, 2), (("strides", (2, 2)),)),
        Operator("LSTM", ((5, 1, 6),), (2, 16, 6), (("direction", "bidirectional"), ("hidden_size", 4))),
        Operator("GRU", ((5, 1, 6),), (1, 12, 6), (("hidden_size", 4),)),
        Operator("BatchNormalization", (SHAPE,), (16,)),
        Operator("Softmax", ((1, 5),), (), (("axis", 1),)),
        Operator("Transpose", (SHAPE,), (), (("perm", (0, 2, 3, 1)),)),
        Operator("QuantizeLinear", (SHAPE,)),
        Operator("DequantizeLinear", (SHAPE,)),
    ],
    ids=lambda operator: operator.op_type,
)
def test_other_operators_run_as_they_are(operator: Operator) -> None:
    model = operator_model(operator)
    assert operator.op_type in [kernel.op_type for kernel in profile(model, random_feeds(model), runs=(1, 1))]


def test_what_runs_behind_the_first_own_kernel_is_behind_it() -> None:
    ran = [
        Kernel("Transpose", "a", (1.0,)),
        Kernel("QLinearConv", "b", (2.0,)),
        Kernel("Transpose", "c", (4.0,)),
        Kernel("QLinearAdd", "d", (8.0,)),
        Kernel("Slice", END, (16.0,)),
    ]
    found = classify("Conv", ran)
    assert (found.kernel_ms, found.before_ms, found.after_ms) == (10.0, 1.0, 4.0)


def test_a_transposition_asked_for_is_no_change_of_layout() -> None:
    assert classify("Transpose", [Kernel("Transpose", "a", (1.5,))]).kernel_ms == 1.5


def test_the_profilers_own_time_is_taken_off_each_kernel_but_not_all_of_it() -> None:
    ran = [Kernel("QLinearAdd", "a", (0.5,)), Kernel("QLinearMul", "b", (0.01,))]
    assert classify("HardSwish", ran, overhead_ms=0.1).kernel_ms == pytest.approx(0.4 + 0.0002)


def test_runs_that_were_disturbed_do_not_count() -> None:
    assert faster_mean([9.0, 1.0, 3.0, 8.0, 7.0]) == pytest.approx((1 + 3 + 7) / 3)


def test_a_real_operator_takes_time_and_a_larger_one_more() -> None:
    small = measure_operator(CONV)
    large = measure_operator(Operator("Conv", ((1, 64, 64, 64),), (64, 64, 3, 3)))  # 2000 times the multiply-adds
    assert 0 < small.kernel_ms < large.kernel_ms
    assert 0 <= profiler_ms() < 1
    assert small.gauge_ms > 0


@pytest.mark.parametrize(
    "operator",
    [
        Operator("InstanceNormalization", ((1, 4, 6, 6),), (4,)),
        Operator("GroupNormalization", ((1, 4, 6, 6),), (4,), {"num_groups": 2}),
    ],
)
def test_normalisations_have_a_scale_and_a_bias(operator: Operator) -> None:
    assert measure_operator(operator).kernel_ms > 0


def test_an_operator_that_does_not_exist_is_named() -> None:
    with pytest.raises(ModelError, match="model 'one Nothing': onnxruntime cannot time it"):
        measure_operator(Operator("Nothing", (SHAPE,)))
