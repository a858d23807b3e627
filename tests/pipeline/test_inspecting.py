"""Any ONNX file can be looked at; what stands in the way of training is named."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from compress.cli import app
from compress.errors import ModelError
from compress.pipeline import inspect_model
from compress.pipeline.facts import look_at
from tests.graph.graphs import image_graph, number, weights


def saved(model: onnx.ModelProto, folder: Path) -> str:
    onnx.save(model, folder / "m.onnx")
    return str(folder / "m.onnx")


def shown(file: str, *options: str) -> str:
    """What the command prints; it ends with 0."""
    result = CliRunner().invoke(app, ["inspect", file, *options], prog_name="compress")
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


INTEGERS = {
    "qdq": """q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) w = DequantizeLinear (i, s)
        c = Conv (d, w) p = GlobalAveragePool (c) y = Flatten (p)""",
    "qoperator": """q = QuantizeLinear (x, s, z) c = QLinearConv (q, s, z, i, s, n, s, z)
        d = DequantizeLinear (c, s, z) p = GlobalAveragePool (d) y = Flatten (p)""",
    "dynamic": """q, a, b = DynamicQuantizeLinear (x) c = ConvInteger (q, i, b) f = Cast <to = 1> (c)
        m = Mul (f, a) p = GlobalAveragePool (m) y = Flatten (p)""",
}


@pytest.mark.parametrize("form", INTEGERS)
def test_int8_files(form: str, tmp_path: Path) -> None:
    constants = {
        "s": number(0.1),
        "z": np.array(128, np.uint8),
        "n": np.array(0, np.int8),
        "i": np.ones((6, 4, 3, 3), np.int8),
    }
    file = saved(image_graph(INTEGERS[form], constants, given="float[N, 4, 10, 12] x"), tmp_path)
    found = inspect_model(file)
    assert found.cost is not None
    assert (found.cost.macs, found.cost.params) == (6 * 4 * 9 * 8 * 10, 6 * 4 * 9)
    assert found.cost.size_bytes == Path(file).stat().st_size
    assert "importable: no - it is quantised already: start from the fp32 model that it was made from" in shown(file)


def test_every_node_that_cannot_be_imported_has_its_line(tmp_path: Path) -> None:
    text = """c = Cast <to = 9> (m) y = If (c) <then_branch = t () => (float[N, 4, H, W] o) { o = Relu (v) },
        else_branch = e () => (float[N, 4, H, W] p) { p = Neg (v) }>"""
    file = saved(
        image_graph(f"v = Conv (x, w) m = ReduceMean <keepdims = 0> (v) {text}", {"w": weights(4, 4, 1, 1)}), tmp_path
    )
    found = inspect_model(file)
    assert found.obstacles == (
        "node 'y' (If): a graph of its own, which depends on what is computed: export the model without it",
    )
    assert found.ops["Relu"] == 1
    assert found.cost is not None
    assert found.cost.macs == 4 * 4 * 48 * 192
    assert "importable: no - node 'y' (If): " in shown(file)


def test_an_operator_that_nobody_knows(tmp_path: Path) -> None:
    model = image_graph("y = Relu (x)")
    model.graph.node[0].op_type, model.graph.node[0].domain = "Magic", "my.own"
    model.opset_import.append(helper.make_opsetid("my.own", 1))
    file = saved(model, tmp_path)
    found = inspect_model(file)
    assert (found.cost, found.ops) == (None, {"my.own.Magic": 1})
    assert "my.own" in found.cost_problem
    assert "KB; MACs not known: onnxruntime cannot load it" in shown(file)
    assert found.obstacles == ("node 'y' (my.own.Magic): an operator of another domain",)


@pytest.mark.parametrize(
    ("given", "body", "why"),
    [
        ("float[N, 3, H, W] x, float[N, 2] z", "p = GlobalAveragePool (x) f = Flatten (p) y = Concat <axis = 1> (f, z)",
         "has 2 inputs and 1 output."),
        ("float[N, 9] x", "y = Relu (x)", "input shape [?, 9]"),
        ("float[3, H, W] x", "y = Relu (x)", "input shape [3, ?, ?]"),
    ],
)  # fmt: skip
def test_what_is_no_network_of_images(given: str, body: str, why: str, tmp_path: Path) -> None:
    file = saved(image_graph(body, given=given), tmp_path)
    found = inspect_model(file)
    assert why in found.cost_problem
    assert why in shown(file)
    assert found.obstacles


@pytest.mark.parametrize(
    ("given", "body", "why"),
    [
        ("uint8[N, 4, 8, 8] x", "f = Cast <to = 1> (x) c = Conv (f, w) r = Relu (c) d = Conv (r, w) "
         "p = GlobalAveragePool (d) y = Flatten (p)",
         "its input is not of floats. Expected float images. Export it with such an input"),
        ("uint8[N, 8, 8, 4] x", "t = Transpose <perm = [0, 3, 1, 2]> (x) f = Cast <to = 1> (t) c = Conv (f, w) "
         "p = GlobalAveragePool (c) y = Flatten (p)",
         "its input is not of floats. Expected float images. Export it with such an input"),
        ("float[1, 4, 8, 8] x, float[1, 4] z", "c = Conv (x, w) p = GlobalAveragePool (c) f = Flatten (p) "
         "y = Add (f, z)",
         "has 2 inputs and 1 output. Expected one image input and at least one output"),
    ],
)  # fmt: skip
def test_what_no_other_command_takes_is_not_importable(given: str, body: str, why: str, tmp_path: Path) -> None:
    """Also of fixed size; the words are those of `evaluate` and `shrink`."""
    file = saved(image_graph(body, {"w": weights(4, 4, 1, 1)}, given=given), tmp_path)
    found = inspect_model(file)
    assert found.obstacles == (why,)
    assert not found.groups
    assert found.cost is not None or found.cost_problem == why
    with pytest.raises(ModelError, match=re.escape(f"{file}: {why}.")):
        look_at(Path(file))


def test_half_precision_is_taken_up_and_said(tmp_path: Path) -> None:
    model = image_graph(
        "v = Conv (x, w) y = Relu (v)", {"w": weights(4, 4, 1, 1).astype(np.float16)}, given="float16[N, 4, 8, 8] x"
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT16, ("N", 4, 8, 8)))
    file = saved(model, tmp_path)
    assert inspect_model(file).obstacles == ()
    assert "holds float16 numbers, taken up to float32" in shown(file)


def test_one_image_at_a_time_is_said(tmp_path: Path) -> None:
    free = saved(
        image_graph("v = Conv (x, w) y = Relu (v)", {"w": weights(4, 4, 1, 1)}, given="float[1, 4, 8, 8] x"), tmp_path
    )
    assert "takes one image at a time; the result takes any number." in shown(free)


def test_a_size_that_it_does_not_run_on(tmp_path: Path) -> None:
    model = image_graph("y = Reshape (x, s)", {"s": np.array([7, 11])})
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (7, 11)))
    file = saved(model, tmp_path)
    assert "it runs on no image of a usual size" in shown(file)
    assert "importable: no - it does not run on such an image: onnxruntime fails" in shown(file, "--input", "4,8,8")


def test_a_size_that_the_file_does_not_take_is_said(tmp_path: Path) -> None:
    model = image_graph("p = GlobalAveragePool (x) y = Flatten (p)", given="float[N, 3, 8, W] x")
    file = saved(model, tmp_path)
    assert "--input 1,48,20: the file fixes other sizes; looked at with 3,8,20" in shown(file, "--input", "1,48,20")
    assert "fixes other sizes" not in shown(file, "--input", "3,8,20")


def test_channels_last(tmp_path: Path) -> None:
    body = """t = Transpose <perm = [0, 3, 1, 2]> (x) c = Conv (t, w) r = Relu (c) v = Conv (r, u)
        p = GlobalAveragePool (v) y = Flatten (p)"""
    constants = {"w": weights(8, 3, 3, 3), "u": weights(2, 8, 1, 1)}
    file = saved(image_graph(body, constants, given="float[N, 20, W, 3] x"), tmp_path)
    found = inspect_model(file, None, (3, 20, 22))
    assert found.cost is not None
    assert found.cost.macs == 18 * 20 * (8 * 27 + 16)
    assert [group.channels for group in found.groups if not group.protected] == [8]


@pytest.mark.parametrize("needed", [True, False])
def test_a_node_without_a_trainable_form_is_said(needed: bool, tmp_path: Path) -> None:
    body = "c = Conv (x, w) y = Hardmax <axis = 1> (c)" if needed else "h = Hardmax <axis = 1> (x) y = Conv (h, w)"
    text = shown(saved(image_graph(body, {"w": weights(4, 4, 1, 1)}, given="float[N, 4, 8, 8] x"), tmp_path))
    assert "(Hardmax): has no trainable form, and is computed by ONNX's reference implementation, slowly;" in text
    assert ("training is refused" in text) == needed
    assert "importable: yes" in text


def test_nan_is_an_obstacle_and_no_error(tmp_path: Path) -> None:
    model = image_graph("y = Conv (x, w)", {"w": weights(2, 4, 1, 1)})
    broken = np.full((2, 4, 1, 1), np.nan, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(broken, "w"))
    assert "weight 'w' holds NaN" in inspect_model(saved(model, tmp_path)).obstacles[0]
