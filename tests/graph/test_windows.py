"""Windows that do not fit: found by the sizes that inference knows, and by nothing else."""

import pytest

from compress.graph import too_large_window
from tests.graph.graphs import image_graph, weights


@pytest.mark.parametrize(
    ("body", "shape", "found"),
    [
        ("y = AveragePool <kernel_shape = [3, 2]> (x)", (1, 4, 2, 9), "AveragePool '' slides 3 x 2 over 2 x 9"),
        ("y = AveragePool <kernel_shape = [3, 2]> (x)", (1, 4, 3, 9), None),
        ("y = AveragePool <kernel_shape = [3, 2], pads = [1, 0, 0, 0]> (x)", (1, 4, 2, 9), None),
        ("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)", (1, 4, 1, 8), None),
        (
            "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)",
            (1, 4, 1, 8),
            "MaxPool '' slides 2 x 2 over 1 x 8",
        ),
        ('y = MaxPool <kernel_shape = [2, 2], auto_pad = "SAME_UPPER"> (x)', (1, 4, 1, 8), None),
        ("y = Conv (x, w)", (1, 4, 2, 8), "Conv '' slides 3 x 3 over 2 x 8"),
        ("y = Conv <dilations = [2, 2]> (x, w)", (1, 4, 4, 8), "Conv '' slides 5 x 5 over 4 x 8"),
        ("a = GlobalAveragePool (x) y = Conv (a, w)", (1, 4, 9, 9), "Conv '' slides 3 x 3 over 1 x 1"),
        ("n = NonZero (x) c = Cast <to = 1> (n) y = Relu (c)", (1, 4, 9, 9), None),
    ],
)
def test_a_window_that_does_not_fit_is_named(body: str, shape: tuple[int, ...], found: str | None) -> None:
    model = image_graph(body, {"w": weights(5, 4, 3, 3)})
    before = model.SerializeToString()
    assert too_large_window(model, shape) == found
    assert model.SerializeToString() == before
