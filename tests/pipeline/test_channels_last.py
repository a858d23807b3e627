"""A file of images [N, H, W, C]: fed and scored as it is, and trained, pruned and written as [N, C, H, W]."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from compress.compute.channel_order import TO_FIRST, TO_LAST
from compress.graph import load_model
from compress.graph.channels_first import with_channels_first
from compress.measure.cost import model_cost
from compress.measure.session import Session, quantize_static_minmax
from compress.pipeline import run_recipe, score_model
from tests.graph.graphs import image_graph
from tests.pipeline import tiny


def in_other_order(path: Path) -> None:
    """Have a file of images [N, C, H, W] take [N, H, W, C]."""
    model = onnx.load(path)
    given = model.graph.input[0]
    for node in model.graph.node:
        node.input[:] = ["first" if name == given.name else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Transpose", [given.name], ["first"], perm=TO_FIRST))
    sizes = [size.dim_value or size.dim_param for size in given.type.tensor_type.shape.dim]
    given.CopyFrom(helper.make_tensor_value_info(given.name, onnx.TensorProto.FLOAT, [sizes[axis] for axis in TO_LAST]))
    onnx.save(model, path)


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path) -> None:
    """The report's rows are those of the same network in the usual order."""
    folder, other = tiny.write_inputs(tmp_path / "last"), tiny.write_inputs(tmp_path / "first")
    in_other_order(folder / "model.onnx")
    assert Session(folder / "model.onnx").input_shape[1] == 3
    task = tiny.task(folder)
    assert score_model(folder / "model.onnx", task, 1) == score_model(other / "model.onnx", task, 1)
    assert model_cost(onnx.load(folder / "model.onnx"), tiny.SHAPE, 9) == model_cost(
        onnx.load(other / "model.onnx"), tiny.SHAPE, 9
    )
    notes: list[str] = []
    found = run_recipe(tiny.recipe(folder), "", on_note=notes.append)
    wanted = run_recipe(tiny.recipe(other), "")
    assert [(row.stage, row.score, row.cost.macs) for row in found.stages] == [
        (row.stage, row.score, row.cost.macs) for row in wanted.stages
    ]
    assert any(note.endswith("model.onnx: takes images [N, H, W, C]; the result takes [N, C, H, W].") for note in notes)
    written = (folder / "out/int8.onnx", other / "out/int8.onnx")
    images = np.random.default_rng(0).standard_normal((2, *tiny.SHAPE)).astype(np.float32)
    np.testing.assert_array_equal(*(Session(file).run(images) for file in written))
    assert "Transpose" not in {node.op_type for node in onnx.load(written[0]).graph.node}


def test_maps_are_read_in_their_order(tmp_path: Path) -> None:
    constants = {"w": np.ones((1, 3, 1, 1), np.float32)}
    body = "t = Transpose <perm = [0, 3, 1, 2]> (x) v = Conv (t, w) y = Transpose <perm = [0, 2, 3, 1]> (v)"
    file = tmp_path / "m.onnx"
    onnx.save(image_graph(body, constants, given="float[N, H, W, 3] x"), file)
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 16)).astype(np.float32)
    session, model = Session(file), load_model(file)
    assert (session.input_shape, session.output_shape) == ((None, 3, None, None), (None, 1, None, None))
    np.testing.assert_allclose(session.run(images), images.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(Session(model).run(images), session.run(images))
    assert [node.op_type for node in model.graph.node] == ["Conv"]


@pytest.mark.parametrize("sizes", ["N, H, W", "1, 64, 96"])
def test_maps_in_the_usual_order_stay(sizes: str, tmp_path: Path) -> None:
    """As PyTorch's export has them of a network that only turns its images."""
    constants = {"w": np.ones((1, 3, 1, 1), np.float32)}
    body = "t = Transpose <perm = [0, 3, 1, 2]> (x) y = Conv (t, w)"
    file = tmp_path / "m.onnx"
    onnx.save(image_graph(body, constants, given=f"float[{sizes}, 3] x"), file)
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    for session in (Session(file), Session(load_model(file))):
        assert session.output_shape[1] == 1
        np.testing.assert_allclose(session.run(images), images.sum(1, keepdims=True), rtol=1e-4, atol=1e-5)


def test_onnxruntimes_own_int8_is_made_of_it(tmp_path: Path) -> None:
    folder = tiny.write_inputs(tmp_path)
    in_other_order(folder / "model.onnx")
    images = np.random.default_rng(0).standard_normal((2, *tiny.SHAPE)).astype(np.float32)
    quantize_static_minmax(folder / "model.onnx", [images], tmp_path / "q.onnx")
    np.testing.assert_allclose(
        Session(tmp_path / "q.onnx").run(images), Session(folder / "model.onnx").run(images), atol=0.1
    )


@pytest.mark.parametrize("given", ["float[N, 3, H, W] x", "float[N, 8, 16, W] x", "float[N, C, H, W] x"])
def test_other_files_are_left_as_they_are(given: str) -> None:
    assert with_channels_first(image_graph("y = Relu (x)", {}, given=given)) is None


def test_features_of_one_column_are_fed_as_they_are() -> None:
    """[N, C, H, 1] looks like grey images [N, H, W, 1]; what fits is not turned."""
    model = image_graph("y = Relu (x)", {}, given="float[N, 8, 20, 1] x")
    images = np.random.default_rng(0).standard_normal((2, 8, 20, 1)).astype(np.float32)
    np.testing.assert_array_equal(Session(model).run(images), np.maximum(images, 0))
