"""A file exported for one image at a time takes several, where its graph allows: training and scoring need batches.

Only constants are in the way, mostly: the targets of Reshape. They are rewritten so that they keep the batch; that each
image then still gets the result it gets alone is not derived, but computed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from compress.errors import ModelError
from compress.graph.canonical import canonicalise
from compress.graph.to_torch import to_torch
from compress.graph.trial_run import run_quietly

SIZES = ((48, 192), (32, 320), (64, 64), (48, 320), (224, 224))
"""Heights and widths that are tried where the file leaves its own open."""
TOLERANCE = 1e-4
"""Of the largest value: sums in another order."""


def has_single_batch(model: onnx.ModelProto) -> bool:
    """Whether the first input is fixed to one image at a time."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return len(dims) > 1 and dims[0].dim_value == 1


def check_batch(sizes: Sequence[int | None], name: object) -> None:
    """Refuse a file that takes several images at a time and no other number of them.

    Args:
        sizes: of its input; None is one that it leaves open.
        name: what the message calls it.

    Raises:
        ModelError: its input is of images, of which it takes exactly so many.
    """
    if len(sizes) == 4 and sizes[0] is not None and sizes[0] > 1:
        raise ModelError(
            f"{name}: takes exactly {sizes[0]} images at a time (input {list(sizes)}). Must take any number, or one. "
            "Export it with a dynamic batch dimension, or with batch 1."
        )


def free_batch(model: onnx.ModelProto, original: onnx.ModelProto | None = None) -> onnx.ModelProto | None:
    """A canonical model of single images, for any number of them; None where some node computes one alone.

    Of three images every output must be what each of them gets by itself.

    Args:
        model: in canonical form, where sizes that are computed of the one image have become constants.
        original: the same model as it was before, whose computed sizes follow the batch by themselves.
    """
    for start in (model, original):
        if start is None:
            continue
        try:
            freed = _with_open_batch(start, model)
            _free_targets(freed, model)
            freed = canonicalise(freed)
            if _keeps_images_apart(freed, model):
                return freed
        except ModelError:  # it cannot be imported, or does not run on several images
            continue
    return None


def _with_open_batch(start: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy, in canonical form, whose first image input takes any number of them."""
    opened = onnx.ModelProto()
    opened.CopyFrom(start)
    images = next(value for value in opened.graph.input if value.name == model.graph.input[0].name)
    images.type.tensor_type.shape.dim[0].dim_param = "batch"
    for value in opened.graph.output:
        value.type.tensor_type.ClearField("shape")
        ranks = next(given for given in model.graph.output if given.name == value.name).type.tensor_type.shape.dim
        value.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in ranks)
    return opened if start is model else canonicalise(opened)


def _free_targets(freed: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Have each Reshape to a constant target keep the batch, where the target has a 1 in its place."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    constants = {tensor.name: tensor for tensor in freed.graph.initializer}
    for node in freed.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        target = numpy_helper.to_array(constants[node.input[1]])
        kept = _batch_kept(target, shapes.get(node.input[0], []))
        name = f"{node.output[0]}.target"
        freed.graph.initializer.append(numpy_helper.from_array(kept, name))
        node.input[1] = name


def _batch_kept(target: np.ndarray, given: list[int]) -> np.ndarray:
    """A Reshape's target with the batch, its first or second dimension of 1, left as it comes.

    >>> _batch_kept(np.array([1, 32, -1]), [1, 8, 4, 9]).tolist()
    [0, 32, -1]
    >>> _batch_kept(np.array([9, 1, 16]), [9, 1, 2, 8]).tolist()
    [9, 0, 16]
    >>> _batch_kept(np.array([1, 4, 8]), [32]).tolist()
    [-1, 4, 8]
    """
    kept = np.array(target, np.int64)
    places = [place for place in (0, 1) if place < len(kept) and kept[place] == 1]
    for place in places:
        if place < len(given) and given[place] == 1:
            kept[place] = 0
            return kept
    if places and -1 not in kept:
        kept[places[0]] = -1
    return kept


def _keeps_images_apart(freed: onnx.ModelProto, model: onnx.ModelProto) -> bool:
    """Whether several images at once give what each gives alone, on noise of the first size that the model takes."""
    alone, together = to_torch(model), to_torch(freed)
    for shape in _sizes(model):
        images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0)) - 0.5
        try:
            wanted = [_outputs(alone, image[None]) for image in images]
        except Exception:  # PyTorch's, of many kinds: not a size that the model takes
            continue
        try:
            found = _outputs(together, images)
        except Exception:  # nor does it take several
            return False
        return all(_is_stacked(one, [parts[place] for parts in wanted]) for place, one in enumerate(found))
    return False


def _sizes(model: onnx.ModelProto) -> Iterator[tuple[int, ...]]:
    """Sizes of an image: the file's own, what it leaves open filled in."""
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    if all(dims) or len(dims) != 3:
        yield tuple(size or 1 for size in dims)
        return
    for height, width in SIZES:
        yield dims[0] or 3, dims[1] or height, dims[2] or width


def _outputs(module: Any, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        result = run_quietly(module, images)
    return result if isinstance(result, tuple) else (result,)


def _is_stacked(found: torch.Tensor, parts: list[torch.Tensor]) -> bool:
    """Whether a result of several images is the single ones', one after another in some dimension."""
    for axis in range(found.ndim):
        if all(part.ndim == found.ndim and part.shape[axis] == 1 for part in parts):
            wanted = torch.cat(parts, dim=axis)
            scale = float(wanted.abs().max()) if wanted.numel() else 0.0
            if wanted.shape == found.shape and torch.allclose(found, wanted, rtol=0.0, atol=TOLERANCE * scale + 1e-7):
                return True
    return False
