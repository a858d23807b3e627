"""Broken versions of files: bytes of any, and what their formats mean."""

import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

NAMES = ("", "x", "../../evil", "/etc/passwd", "a\nb", "\0", "ü" * 40, "n" * 5000, "%s{}", "a/b", "training", "[bold]")
"""What a thing may be called that no exporter calls it."""
NUMBERS = (0, -1, 1, 2, 7, 255, 65536, 2**31 - 1, 2**31, -(2**31), 2**40, 2**63 - 1)
FLOATS = (0.0, -1.0, 0.5, 1e-45, 1e38, float("nan"), float("inf"), float("-inf"))


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flipped, cut off, cut out, doubled or zeroed somewhere."""
    way = rng.randrange(6)
    if not data or way == 0:
        return data[: rng.randrange(len(data) + 1)]
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 2, 16, 256)))
    if way == 1:
        return data[:start] + data[end:]
    if way == 2:
        return data[:end] + data[start:]
    if way == 3:
        return data[:start] + bytes(end - start) + data[end:]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


# --- models -----------------------------------------------------------------------------------------------------


def change_model(data: bytes, rng: random.Random) -> bytes:
    """One to three changes of a model's parts, so that it is still protobuf."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(MODEL_CHANGES)(model, rng)
    return bytes(model.SerializeToString())


def _tensor(model: onnx.ModelProto, rng: random.Random) -> TensorProto:
    if not model.graph.initializer:
        model.graph.initializer.append(helper.make_tensor("made", TensorProto.FLOAT, [1], [1.0]))
    return rng.choice(list(model.graph.initializer))


def _node(model: onnx.ModelProto, rng: random.Random) -> onnx.NodeProto:
    if not model.graph.node:
        model.graph.node.append(helper.make_node("Relu", ["x"], ["made"]))
    return rng.choice(list(model.graph.node))


def _values(model: onnx.ModelProto) -> list[str]:
    return sorted({name for node in model.graph.node for name in (*node.input, *node.output)}) or ["x"]


def _dims(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _tensor(model, rng)
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif tensor.dims and rng.random() < 0.5:
        del tensor.dims[-1]
    else:
        tensor.dims.append(rng.choice((0, 1, 3)))


def _reshaped(model: onnx.ModelProto, rng: random.Random) -> None:
    """Dims and data that go together, but not with the node."""
    tensor = _tensor(model, rng)
    shape = [rng.choice((0, 1, 2, 3, 8)) for _ in range(rng.randrange(6))]
    tensor.CopyFrom(numpy_helper.from_array(np.full(shape, rng.random(), np.float32), tensor.name))


def _raw(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _tensor(model, rng)
    tensor.raw_data = change_bytes(tensor.raw_data, rng)


def _array(tensor: TensorProto) -> np.ndarray:
    """A tensor's values; of one that an earlier change broke, some."""
    try:
        return np.array(numpy_helper.to_array(tensor))
    except Exception:
        return np.ones(2, np.float32)


def _weights(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _tensor(model, rng)
    array = _array(tensor)
    if array.size and array.dtype == np.float32:
        array.reshape(-1)[rng.randrange(array.size) :: rng.choice((1, 3))] = rng.choice(FLOATS)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _sizes(model: onnx.ModelProto, rng: random.Random) -> None:
    """Another number in a constant of whole numbers: a shape, axes, pads."""
    whole = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64]
    if whole:
        tensor = rng.choice(whole)
        array = _array(tensor)
        if array.size:
            array.reshape(-1)[rng.randrange(array.size)] = rng.choice(NUMBERS)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _dtype(model: onnx.ModelProto, rng: random.Random) -> None:
    _tensor(model, rng).data_type = rng.choice((0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 16, 17, 23, 99))


def _cast(model: onnx.ModelProto, rng: random.Random) -> None:
    """A constant that is whole, but of another type."""
    tensor = _tensor(model, rng)
    kind = rng.choice((np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_))
    with np.errstate(all="ignore"):
        tensor.CopyFrom(numpy_helper.from_array(_array(tensor).astype(kind), tensor.name))


def _external(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _tensor(model, rng)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = ("tiny.onnx", "../secret", "/etc/passwd", "missing.bin", "", ".", "a\0b", "/dev/zero")
    for key, value in (("location", rng.choice(places)), ("offset", str(rng.choice(NUMBERS)))):
        if rng.random() < 0.9:
            tensor.external_data.add(key=key, value=value)
    if rng.random() < 0.5:
        tensor.external_data.add(key="length", value=rng.choice(("4", "-1", "x", str(2**62))))


def _lost_tensor(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        del model.graph.initializer[rng.randrange(len(model.graph.initializer))]


def _renamed(model: onnx.ModelProto, rng: random.Random) -> None:
    part = rng.choice([*model.graph.initializer, *model.graph.node, *model.graph.input, *model.graph.output])
    part.name = rng.choice((*NAMES, *_values(model)))


def _renamed_throughout(model: onnx.ModelProto, rng: random.Random) -> None:
    """A strange name, but the same everywhere: often a good model."""
    old, new = rng.choice(_values(model)), rng.choice(NAMES)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for part in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        if part.name == old:
            part.name = new


def _lost_node(model: onnx.ModelProto, rng: random.Random) -> None:
    if model.graph.node:
        del model.graph.node[rng.randrange(len(model.graph.node))]


def _doubled_node(model: onnx.ModelProto, rng: random.Random) -> None:
    model.graph.node.append(_node(model, rng))


def _wired_elsewhere(model: onnx.ModelProto, rng: random.Random) -> None:
    """An operand from anywhere: cycles, other shapes, missing values."""
    node = _node(model, rng)
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice((*_values(model), "", "nowhere"))


def _other_operands(model: onnx.ModelProto, rng: random.Random) -> None:
    node, way = _node(model, rng), rng.randrange(4)
    if way == 0 and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif way == 1:
        node.input.append(rng.choice(_values(model)))
    elif way == 2 and node.output:
        del node.output[-1]
    else:
        node.output.append(rng.choice(("", "more", *_values(model))))


def _shuffled(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


OPERATORS = ("Relu", "Conv", "Add", "MatMul", "Reshape", "Softmax", "LSTM", "Concat", "Transpose", "Loop", "If")
OPERATORS += ("Resize", "Identity", "BatchNormalization", "Clip", "Split", "Slice", "Gather", "DepthToSpace", "NonZero")
OPERATORS += ("Evil", "")


def _operator(model: onnx.ModelProto, rng: random.Random) -> None:
    _node(model, rng).op_type = rng.choice(OPERATORS)


def _domain(model: onnx.ModelProto, rng: random.Random) -> None:
    _node(model, rng).domain = rng.choice(("com.evil", "ai.onnx", "com.microsoft", "ai.onnx.ml"))


def _attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if node.attribute and rng.random() < 0.25:
        del node.attribute[rng.randrange(len(node.attribute))]
        return
    names = [entry.name for entry in node.attribute] or ["axis"]
    name = rng.choice((*names, "axis", "group", "strides", "pads", "kernel_shape", "perm", "auto_pad", "hidden_size"))
    old = next((entry for entry in node.attribute if entry.name == name), None)
    kept = [entry for entry in node.attribute if entry.name != name]
    if old is not None and old.ints and rng.random() < 0.6:
        numbers = list(old.ints)
        numbers[rng.randrange(len(numbers))] = rng.choice(NUMBERS)
        values: Any = numbers
    else:
        values = rng.choice((*NUMBERS, *FLOATS, "text", [1, 1], [0, 0, 0, 0], [2**40] * 4, [-1] * 8, [0.5, 2.0]))
    copies = [onnx.AttributeProto.FromString(entry.SerializeToString()) for entry in kept]
    del node.attribute[:]
    node.attribute.extend([*copies, helper.make_attribute(name, values)])


def _interface(model: onnx.ModelProto, rng: random.Random) -> None:
    values = rng.choice((model.graph.input, model.graph.output))
    way = rng.randrange(5)
    if way == 0 and values:
        del values[rng.randrange(len(values))]
    elif way == 1:
        shape = rng.choice(([1, 3, 16, 32], [], None, ["N", 2]))
        name = rng.choice((*_values(model), *NAMES))
        values.append(helper.make_tensor_value_info(name, rng.choice((1, 7, 8, 9, 10)), shape))
    elif values:
        kind = rng.choice(list(values)).type.tensor_type
        if way == 2:
            kind.elem_type = rng.choice((0, 1, 2, 7, 8, 10, 11, 77))
        elif way == 3 and kind.shape.dim:
            dim = rng.choice(list(kind.shape.dim))
            if rng.random() < 0.5:
                dim.dim_value = rng.choice(NUMBERS)
            else:
                dim.dim_param = rng.choice(NAMES)
        else:
            kind.shape.dim.add(dim_value=rng.choice((0, 1, 5)))


def _versions(model: onnx.ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.3:
        model.ir_version = rng.choice((0, -1, 3, 99, 2**62))
    elif model.opset_import and rng.random() < 0.8:
        model.opset_import[0].version = rng.choice((0, -1, 1, 7, 9, 11, 13, 18, 21, 999, 2**62))
    else:
        model.opset_import.add(domain=rng.choice(("", "com.evil")), version=rng.choice((1, 9, 17)))


def _subgraph(model: onnx.ModelProto, rng: random.Random) -> None:
    branch = helper.make_graph([helper.make_node("Identity", [rng.choice(_values(model))], ["b"])], "b", [], [])
    if rng.random() < 0.7:
        branch.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, None))
    values = _values(model)
    node = helper.make_node("If", [rng.choice(values)], ["either"], then_branch=branch, else_branch=branch)
    model.graph.node.insert(rng.randrange(len(model.graph.node) + 1), node)
    if rng.random() < 0.5:
        model.graph.output.append(helper.make_tensor_value_info("either", TensorProto.FLOAT, None))


def _function(model: onnx.ModelProto, rng: random.Random) -> None:
    """A function of the model's own; half of them call themselves."""
    inner = "Own" if rng.random() < 0.5 else "Relu"
    body = [helper.make_node(inner, ["i"], ["o"], domain="own" if inner == "Own" else "")]
    model.functions.append(helper.make_function("own", "Own", ["i"], ["o"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.add(domain="own", version=1)
    node = _node(model, rng)
    node.op_type, node.domain = "Own", "own"


MODEL_CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    *(_dims, _reshaped, _raw, _weights, _sizes, _dtype, _cast, _external, _lost_tensor, _renamed, _renamed_throughout),
    *(_lost_node, _doubled_node, _wired_elsewhere, _other_operands, _shuffled, _operator, _domain, _attribute),
    *(_attribute, _attribute, _wired_elsewhere, _interface, _versions, _subgraph, _function),
)


# --- texts ------------------------------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    *(None, True, "", "text", "ü\u202e", [], {}, [[]], {"a": {"b": 1}}, -1, 0, 1.5, 1e-30, float("nan"), float("inf")),
    *(-float("inf"), "1e3", "*", "../..", "/", "a" * 3000, [None], [1, "x"], "\0", "2020-01-01", "os:system", ["", ""]),
)
"""Values where another is expected. None makes a run long."""
HUGE = (10**30, -(10**30), 2**63, 1e300)
LONG = ("epochs", "rounds")
"""Keys of which a huge number is allowed, and takes as long."""


def change_value(data: Any, rng: random.Random) -> Any:
    """Plain data with one or two odd values, keys or holes at any depth."""
    for _ in range(rng.choice((1, 1, 2))):
        data = _changed(data, rng, "")
    return data


def _changed(data: Any, rng: random.Random, key: str) -> Any:
    deeper = isinstance(data, dict | list) and bool(data) and rng.random() < 0.85
    if not deeper:
        return rng.choice(ODD if key in LONG else (*ODD, *HUGE))
    if isinstance(data, dict):
        name = rng.choice(sorted(data, key=str))
        way = rng.random()
        if way < 0.1:
            return {other: value for other, value in data.items() if other != name}
        if way < 0.2:
            return {**data, rng.choice((f"{name}s", "", "evil", str(name).upper())): data[name]}
        return {**data, name: _changed(data[name], rng, str(name))}
    index = rng.randrange(len(data))
    way = rng.random()
    if way < 0.1:
        return data[:index] + data[index + 1 :]
    if way < 0.2:
        return [*data, data[index]]
    return [*data[:index], _changed(data[index], rng, key), *data[index + 1 :]]


YAML = ("&a [*a]", "a: &a\n  <<: *a", "{" * 3000, "[" * 3000, "!!python/object/apply:os.system ['true']", "%", "\t")
YAML += ("? ", "- " * 2000, "a: b: c", "\ufeff", "---\n---\n", "1", "null", "!!binary x", "!!timestamp 2020-13-45")


def change_recipe(data: bytes, rng: random.Random) -> bytes:
    way = rng.random()
    if way < 0.12:
        return change_bytes(data, rng)
    if way < 0.3:
        lines = data.decode().splitlines()
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(YAML))
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    return yaml.safe_dump(change_value(yaml.safe_load(data), rng), sort_keys=False).encode()


def change_json(data: bytes, rng: random.Random) -> bytes:
    way = rng.random()
    if way < 0.2:
        return change_bytes(data, rng)
    if way < 0.25:
        return rng.choice((b"[" * 5000, b"{}", b"null", b'{"version": 1}', b"1e999", b"\xff\xfe{}", b'{"a":' * 3000))
    return json.dumps(change_value(json.loads(data), rng)).encode()


def change_list(data: bytes, rng: random.Random) -> bytes:
    """A label list with odd lines."""
    if rng.random() < 0.15:
        return change_bytes(data, rng)
    lines = data.decode().splitlines()
    for _ in range(rng.choice((1, 2, 4))):
        index = rng.randrange(len(lines))
        path, _, label = lines[index].partition("\t")
        lines[index] = rng.choice(LINE_CHANGES)(path, label, rng)
    return rng.choice(("\n", "\n", "\r\n", "\r")).join(lines).encode("utf-8", "surrogatepass")


POINTS: tuple[Any, ...] = (
    *([], [[1, 1]], [[1, 1], [2, 2]], [[0, 0]] * 4, [[1, 1], [9, 9], [9, 1], [1, 9]], [["a", 1]] * 4, "points", None),
    *([[float("nan")] * 2] * 4, [[float("inf"), 0]] * 4, [[1e308, -1e308]] * 4, [[10**30, 0], [0, 10**30], [5, 5]], 7),
    *([[i, i * i % 97] for i in range(400)], [[1, 2, 3]] * 4, [[True] * 2] * 4),
    [[-5, -5], [900, -5], [900, 900], [-5, 900]],
    [[10**5, 10**5], [10**9, 10**5], [10**9, 10**9], [10**5, 10**9]],
)


def _scene_label(path: str, label: str, rng: random.Random) -> str:
    region: Any = {"transcription": rng.choice(("a", "###", "", None, 5, "\u202e")), "points": rng.choice(POINTS)}
    if rng.random() < 0.2:
        region.pop(rng.choice(("transcription", "points")))
    regions: Any = rng.choice(([region], [region] * 3, region, [[region]], [None], [region, {}], []))
    return f"{path}\t{json.dumps(regions)}"


LABELS = ("", " ", "180", "0", "ü", "\u202e", "a" * 5000, "\0", "\ud800", "#")
LINE_CHANGES: tuple[Callable[[str, str, random.Random], str], ...] = (
    lambda path, label, rng: path + label,
    lambda path, label, rng: f"{path}\t{label}\t{label}",
    lambda path, label, rng: f"\t{label}",
    lambda path, label, rng: f"{path}\t",
    lambda path, label, rng: f"{rng.choice(NAMES)}\t{label}",
    lambda path, label, rng: f"{rng.choice(('.', '..', '/', '/dev/zero', '/dev/null', '../val', '~'))}\t{label}",
    lambda path, label, rng: f"{path}\t{rng.choice(LABELS)}",
    lambda path, label, rng: f"{path}\t{change_bytes(label.encode(), rng).decode('utf-8', 'replace')}",
    _scene_label,
    _scene_label,
    _scene_label,
)


# --- images -----------------------------------------------------------------------------------------------------


def odd_image(data: bytes, rng: random.Random) -> bytes:
    """A broken version of an image file, or a whole one of an odd kind."""
    if rng.random() < 0.35:
        return change_bytes(data, rng)
    return rng.choice(ODD_IMAGES)(rng)


def _saved(mode: str, size: tuple[int, int], kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind)
    return stream.getvalue()


def _claiming_png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG that says it is so large, with hardly any data."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


ODD_IMAGES: tuple[Callable[[random.Random], bytes], ...] = (
    lambda rng: b"",
    lambda rng: b"GIF89a",
    lambda rng: b"<svg/>",
    lambda rng: b"\xff\xd8\xff",
    lambda rng: b"\x89PNG\r\n\x1a\n",
    lambda rng: b"P6 999999 999999 255\n",
    lambda rng: b"P6 0 0 255\n",
    lambda rng: b"BM" + bytes(60),
    lambda rng: b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    lambda rng: b"II*\0\x08\0\0\0\xff\xff",
    lambda rng: rng.randbytes(300),
    lambda rng: _claiming_png(rng.choice((0, 1, 4000, 2**31 - 1)), rng.choice((0, 1, 4000, 2**31 - 1))),
    lambda rng: _claiming_png(30000, 1),
    lambda rng: _claiming_png(8, 8, rng.choice((1, 3, 16, 255)), rng.choice((0, 3, 6, 9))),
    lambda rng: _saved(rng.choice(("1", "L", "LA", "P", "RGBA", "I;16")), (20, 10), "PNG"),
    lambda rng: _saved(rng.choice(("L", "CMYK", "RGB")), (20, 10), "JPEG"),
    lambda rng: _saved("RGB", (1, 1), rng.choice(("PNG", "BMP", "TIFF", "GIF", "WEBP"))),
    lambda rng: _saved("L", (3000, 1), "PNG"),
    lambda rng: _saved("L", (1, 3000), "PNG"),
    lambda rng: cv2.imencode(".png", np.zeros((5, 5), np.uint16))[1].tobytes(),
)
