"""NNCF's post-training quantisation of an ONNX file. Needs nncf, numpy and onnx, and nothing of this project.

    PYTHON benchmarks/nncf_int8.py MODEL IMAGES OUT [--half-range]

IMAGES is an .npz of float32 batches [N, C, H, W], all of which are used. Prints NNCF's version.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

os.environ.setdefault("NNCF_CI", "1")  # else it reports its use over the network


def quantize(source: Path, images: Sequence[np.ndarray], *, half_range: bool = False) -> onnx.ModelProto:
    """The int8 model by NNCF's defaults, but the full bias correction, its more accurate one.

    Args:
        source: the float model.
        images: float32 batches [N, C, H, W]; all are used.
        half_range: 7-bit weights in every layer; by default NNCF takes them for the first alone.

    Raises:
        ImportError: NNCF is not installed.
        Exception: whatever NNCF raises on the model.
    """
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    model = onnx.load(source)
    name = model.graph.input[0].name
    fix = nncf.OverflowFix.ENABLE if half_range else None
    made: Any = nncf.quantize(
        model,
        nncf.Dataset([{name: batch} for batch in images]),
        subset_size=len(images),
        fast_bias_correction=False,
        advanced_parameters=nncf.AdvancedQuantizationParameters(**({"overflow_fix": fix} if fix else {})),
    )
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--half-range", action="store_true", help="7-bit weights in every layer")
    options = parser.parse_args()
    with np.load(options.images) as stored:
        images = [stored[name] for name in stored.files]
    made = quantize(options.model, images, half_range=options.half_range)
    onnx.save(made, options.out)
    import nncf

    print(nncf.__version__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
