"""The deployed PP-OCR models: detector, classifier and recogniser import whole, and compute what the files compute."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compress.graph import load_model, to_onnx, to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.session import Session
from tests.graph.graphs import ops

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
DETECTOR = "ch_ppocr_mobile_v2.0_det_infer.onnx"
CLASSIFIER = "ch_ppocr_mobile_v2.0_cls_infer.onnx"
RECOGNISER = "en_number_mobile_v2.0_rec_infer.onnx"
SHAPES = {
    DETECTOR: ((1, 3, 160, 96), (2, 3, 64, 224)),
    CLASSIFIER: ((1, 3, 48, 192), (3, 3, 48, 96)),
    RECOGNISER: ((1, 3, 32, 320), (3, 3, 32, 100)),
}
"""Two batch sizes, two widths; the detector has two heights as well."""
OPERATORS = {
    DETECTOR: {"Conv": 56, "BatchNormalization": 49, "HardSwish": 20, "ConvTranspose": 2, "Resize": 6, "Concat": 1},
    CLASSIFIER: {"Conv": 53, "BatchNormalization": 35, "HardSwish": 18, "HardSigmoid": 9, "Flatten": 1, "Gemm": 1},
    RECOGNISER: {"Conv": 53, "BatchNormalization": 35, "HardSwish": 18, "HardSigmoid": 9, "LSTM": 2, "MatMul": 1},
}
TOLERANCE = 1e-5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODELS.is_dir(), reason="needs the PP-OCR models in ../shared/data/models"),
]


def rounding(path: Path, x: np.ndarray) -> float:
    """What onnxruntime's own optimisation changes in the file's outputs, on or off: float32's rounding, grown.

    Below 1e-5 for detector and classifier; the recogniser's LSTMs can make 2e-4 of it on a real crop.
    """
    return float(np.abs(Session(path).run(x) - Session(path, optimise=False).run(x)).max())


@pytest.mark.parametrize("name", SHAPES)
def test_import_and_writing_keep_the_outputs(name: str) -> None:
    path = MODELS / name
    original = Session(path)
    template = load_model(path)
    module = to_torch(template)
    written = to_onnx(copy.deepcopy(module), template)
    onnx.checker.check_model(written, full_check=True)
    files = {"canonical": template, "written": written, "lowered": lower_for_int8(written)}
    sessions = {kind: Session(file) for kind, file in files.items()}
    for seed, shape in enumerate(SHAPES[name]):
        x = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
        expected, atol = original.run(x), max(TOLERANCE, 4 * rounding(path, x))
        with torch.no_grad():
            np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), expected, atol=atol, err_msg="module")
        for kind, session in sessions.items():
            np.testing.assert_allclose(session.run(x), expected, atol=atol, err_msg=kind)


@pytest.mark.parametrize("name", SHAPES)
def test_form_is_canonical_and_lowers_whole(name: str) -> None:
    template = load_model(MODELS / name)
    found = ops(template)
    assert {op: found[op] for op in OPERATORS[name]} == OPERATORS[name]
    assert not {"Clip", "Div", "Shape", "Slice", "Tile", "Identity", "Dropout"} & set(found)
    assert not {"BatchNormalization", "HardSigmoid"} & set(ops(lower_for_int8(template)))


@pytest.mark.parametrize("name", SHAPES)
def test_loading_again_changes_nothing(name: str, tmp_path: Path) -> None:
    once = load_model(MODELS / name)
    (tmp_path / "once.onnx").write_bytes(once.SerializeToString())
    assert load_model(tmp_path / "once.onnx") == once
