"""Padding of convolutions and pooling: in pixels, or by auto_pad."""

from collections.abc import Sequence

from compress.graph.importer import Attributes, Unsupported
from compress.graph.indexing import same_sides

SAME = (b"SAME_UPPER", b"SAME_LOWER")
"""Values of auto_pad that depend on the image."""
Same = tuple[list[int], list[int], list[int], bool]
"""Kernel, strides, dilations, and whether the odd pixel goes behind: what `pad_same` takes."""


def split_padding(at: Attributes, kernel: Sequence[int]) -> tuple[tuple[int, ...], list[int] | None, Same | None]:
    """Padding as one of three: even padding for the layer, PyTorch-ordered uneven padding to do before it, or SAME.

    With stride 1 SAME is a number of pixels like any other; else it depends on the image's size.
    """
    dims = len(kernel)
    mode = at.get("auto_pad", b"NOTSET")
    strides, dilations = (list(at.get(name, [1] * dims)) for name in ("strides", "dilations"))
    pads = list(at.get("pads", [0] * 2 * dims))
    if mode in SAME:
        upper = mode == b"SAME_UPPER"
        if set(strides) != {1}:
            return (0,) * dims, None, (list(kernel), strides, dilations, upper)
        sides = [same_sides(0, size, 1, step, upper) for size, step in zip(kernel, dilations, strict=True)]
        pads = [begin for begin, _ in sides] + [end for _, end in sides]
    elif mode == b"VALID":
        pads = [0] * 2 * dims
    elif mode not in (b"NOTSET", b""):
        raise Unsupported(f"auto_pad {mode.decode()}")
    begin, end = pads[:dims], pads[dims:]
    if begin == end:
        return tuple(begin), None, None
    return (0,) * dims, [side for axis in reversed(range(dims)) for side in (begin[axis], end[axis])], None
