"""Resize and GridSample: PyTorch's own interpolation where it computes the same, else ours."""

from dataclasses import astuple
from typing import Any

import onnx
import torch.nn.functional as F

from compress.graph import interpolation, modules
from compress.graph.importer import Attributes, Handler, Importer, Unsupported
from compress.graph.operators.arguments import plain_sizes

STEPS = 64
"""Factors in whole 64ths are products without rounding in float32, too, as onnxruntime multiplies: PyTorch's own
interpolation gives as many pixels for them, at the same places."""


def _grid_sample(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    mode = at.get("mode", b"linear").decode()
    known = {
        "linear": "bilinear",
        "bilinear": "bilinear",
        "nearest": "nearest",
        "cubic": "bicubic",
        "bicubic": "bicubic",
    }
    options = {
        "mode": known[mode],
        "padding_mode": at.get("padding_mode", b"zeros").decode(),
        "align_corners": bool(at.get("align_corners", 0)),
    }
    return g.call(node, F.grid_sample, *(g.value(name) for name in node.input), **options)


def _resize(g: Importer, node: onnx.NodeProto, at: Attributes) -> Any:
    policy = at.get("keep_aspect_ratio_policy", b"stretch")
    if at.get("antialias", 0):
        raise Unsupported("antialias")
    x = g.value(node.input[0])
    has_sizes = len(node.input) > 3 and bool(node.input[3])
    scales = None if has_sizes else g.constant(node.input[2])
    plain = at.get("axes", [2, 3]) == [2, 3] and policy == b"stretch"
    if has_sizes and plain and (mode := _resize_mode(at, None)) is not None and _is_image(g, node, at):
        return g.call(node, modules.resize_to, x, g.value(node.input[3]), *mode)
    if scales is not None and plain and ("axes" in at or (scales.size == 4 and (scales[:2] == 1).all())):
        factors = [float(scale) for scale in scales[-2:]]
        mode = _resize_mode(at, factors) if all((STEPS * factor).is_integer() for factor in factors) else None
        if mode is not None:
            return g.call(node, modules.resize_by, x, factors, *mode)
    axes = [int(axis) for axis in at["axes"]] if "axes" in at else list(range(g.rank(node.input[0]) or 4))
    how = astuple(_resampling(at))
    if has_sizes:
        return g.call(node, interpolation.resize, x, axes, plain_sizes(g, node.input[3]), None, *how)
    factors_or_value = g.value(node.input[2]) if scales is None else [float(scale) for scale in scales]
    return g.call(node, interpolation.resize, x, axes, None, factors_or_value, *how)


def _is_image(g: Importer, node: onnx.NodeProto, at: Attributes) -> bool:
    """Whether sizes are of height and width alone: channels, where they are named, stay as many."""
    return (g.rank(node.input[0]) or 4) == 4


def _resampling(at: Attributes) -> interpolation.Resampling:
    """What a Resize's attributes say."""
    how = interpolation.Resampling(
        mode=at.get("mode", b"nearest").decode(),
        coordinates=at.get("coordinate_transformation_mode", b"half_pixel").decode(),
        rounding=at.get("nearest_mode", b"round_prefer_floor").decode(),
        cubic_a=float(at.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(at.get("exclude_outside", 0)),
        policy=at.get("keep_aspect_ratio_policy", b"stretch").decode(),
    )
    known = (interpolation.MODES, interpolation.COORDINATES, interpolation.POLICIES)
    for found, allowed in zip((how.mode, how.coordinates, how.policy), known, strict=True):
        if found not in allowed:
            raise Unsupported(found)
    return how


def _resize_mode(at: Attributes, factors: list[float] | None) -> tuple[str, bool | None] | None:
    """PyTorch's mode and align_corners, None where it has no equal one; `factors` where they are fixed."""
    mode = at.get("mode", b"nearest").decode()
    coordinates = at.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode == "linear" and coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return "bilinear", coordinates == "align_corners"
    if mode != "nearest":
        return None
    rounding = at.get("nearest_mode", b"round_prefer_floor").decode()
    whole = factors is not None and all(factor.is_integer() for factor in factors)
    doubled = factors is not None and set(factors) <= {1.0, 2.0}
    same = (
        (coordinates == "asymmetric" and rounding == "floor")
        # The centre of a whole factor's pixel, rounded to the nearest source, is the floor as well (and never a tie).
        or (whole and coordinates == "half_pixel" and rounding in ("round_prefer_floor", "round_prefer_ceil"))
        or (doubled and coordinates == "asymmetric" and rounding == "round_prefer_floor")
    )
    return ("nearest", None) if same else None


RESIZING: dict[str, Handler] = {
    "Resize": _resize,
    "GridSample": _grid_sample,
}
