"""Files for one image at a time: made for several where that changes nothing."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compress.errors import ModelError
from compress.graph import load_model
from compress.graph.batching import free_batch, has_single_batch
from compress.graph.canonical import canonicalise
from compress.measure.session import Session
from compress.pipeline.facts import look_at
from compress.pipeline.guessing import guess_task
from compress.pipeline.inspecting import inspect_model
from tests.graph.graphs import image_graph, images, ints, weights

RECURRENT = {"w": weights(1, 20, 4), "r": weights(1, 20, 5), "m": weights(5, 7)}
BODIES = {
    "convolution": ("y = Conv (x, c)", {"c": weights(6, 4, 3, 3)}),
    "flatten": ("p = GlobalAveragePool (x) y = Reshape (p, s)", {"s": ints(1, 4)}),
    "steps": ("y = Reshape (x, s)", {"s": ints(1, 4, 48)}),
    "shuffle": (
        "a = Reshape (x, s) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) y = Reshape (b, t)",
        {"s": ints(1, 2, 2, 6, 8), "t": ints(1, 4, 6, 8)},
    ),
    "recurrent [T, N, K]": (
        """q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q)
        a, h = LSTM <hidden_size = 5> (t, w, r, , , z, z) b = Squeeze (a, one) y = MatMul (b, m)""",
        RECURRENT | {"z": np.zeros((1, 1, 5), np.float32), "one": ints(1)},
    ),
    "rows": (
        """q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q)
        b = Reshape (t, s) c = Relu (b) y = Reshape (c, u)""",
        {"s": ints(8, 4), "u": ints(8, 1, 4)},
    ),
}
STAYS = {"mixed"}
COMPUTED = """q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q)
    k = Shape (t) n = Slice (k, zero, two) a = Reshape (t, u) b = Relu (a) v = Concat <axis = 0> (n, rest)
    y = Reshape (b, v)"""
"""As PyTorch exports a linear layer on the steps of an LSTM (ddddocr): sizes are read from the tensor."""
BODIES["computed sizes"] = (COMPUTED, {"zero": ints(0), "two": ints(2), "u": ints(-1, 4), "rest": ints(-1)})
BODIES["mixed"] = ("m = ReduceMean <axes = [0]> (x) y = Sub (x, m)", {})


@pytest.mark.parametrize("name", BODIES)
def test_several_images_are_the_single_ones_side_by_side(name: str) -> None:
    body, constants = BODIES[name]
    width = "W" if name == "computed sizes" else "8"
    original = image_graph(body, constants, given=f"float[1, 4, 6, {width}] x")
    model = canonicalise(original)
    before = model.SerializeToString()
    freed = free_batch(model, original)
    assert model.SerializeToString() == before
    assert (freed is None) == (name in STAYS)
    if freed is None:
        return
    assert not has_single_batch(freed)
    batch = images((3, 4, 6, 8))
    alone = [Session(model).run(image[None]) for image in batch]
    axis = 1 if name.startswith(("recurrent", "rows", "computed")) else 0
    np.testing.assert_allclose(Session(freed).run(batch), np.concatenate(alone, axis), atol=1e-5)


def test_half_precision_is_fed_and_read_as_float32() -> None:
    model = image_graph("y = Relu (x)", given="float16[N, 4, 6, 8] x")
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    x = images((3, 4, 6, 8))
    found = Session(model).run(x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.maximum(x.astype(np.float16), 0).astype(np.float32))


def test_only_a_batch_of_one_is_meant() -> None:
    assert has_single_batch(image_graph("y = Relu (x)", given="float[1, 4, 6, 8] x"))
    assert not has_single_batch(image_graph("y = Relu (x)"))
    assert not has_single_batch(image_graph("y = Relu (x)", given="float[2, 4, 6, 8] x"))


def test_one_by_one_in_onnxruntime() -> None:
    model: onnx.ModelProto = image_graph("m = ReduceMean <axes = [0]> (x) y = Sub (x, m)", given="float[1, 4, 6, 8] x")
    assert Session(model).run(images((3, 4, 6, 8))).tolist() == np.zeros((3, 4, 6, 8)).tolist()


@pytest.mark.parametrize("images_at_once", [2, 4])
def test_a_file_for_several_images_alone_is_refused(images_at_once: int, tmp_path: Path) -> None:
    model = image_graph("y = Conv (x, c)", {"c": weights(6, 4, 3, 3)}, given=f"float[{images_at_once}, 4, 8, 8] x")
    onnx.save(model, tmp_path / "m.onnx")
    said = rf"m\.onnx: takes exactly {images_at_once} images at a time \(input .*\)\. .* Export it with a dynamic batch"
    with pytest.raises(ModelError, match=said):
        load_model(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=said):
        look_at(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=said):
        guess_task(str(tmp_path / "m.onnx"), "detection", None, "quantize")
    assert any("takes exactly" in line for line in inspect_model(str(tmp_path / "m.onnx")).obstacles)
