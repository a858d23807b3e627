"""The deployed PP-OCR models in int8: parity on rendered crops, and what onnxruntime is left with in float."""

from pathlib import Path

import numpy as np
import pytest

from compress.data.synthetic import render_crop
from compress.data.transforms import resize_crop, stack_resized
from compress.export import check_parity, export_int8
from compress.graph import load_model, to_torch
from compress.graph.lowering import lower_for_int8
from compress.quant import calibrate, prepare_qat
from compress.quant.recurrent_weights import round_recurrent
from tests.export import files

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
CASES = {
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": ((3, 48, 192), 0.32, {"Conv": 1, "QLinearConv": 51, "QGemm": 1}),
    "en_number_mobile_v2.0_rec_infer.onnx": ((3, 32, 160), 0.58, {"Conv": 1, "QLinearConv": 51, "LSTM": 2}),
    "ch_ppocr_mobile_v2.0_det_infer.onnx": ((3, 96, 320), 0.29, {"Conv": 1, "QLinearConv": 58, "ConvTranspose": 0}),
}
"""File -> input shape, largest size over the deployed file's, and layers as onnxruntime runs them. Two 1x1 ones of the
classifier and the recogniser merge; the detector's transposed ones, and those of upsampled tensors, become more."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODELS.is_dir(), reason="needs the PP-OCR models in ../shared/data/models"),
]


def crops(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    rendered = [render_crop(f"text {index}", np.random.default_rng(index)) for index in range(count)]
    return stack_resized([resize_crop(crop, shape) for crop in rendered], shape)


@pytest.mark.parametrize("name", CASES)
def test_deployed_model(name: str) -> None:
    shape, size_ratio, layers = CASES[name]
    template = lower_for_int8(load_model(MODELS / name))
    module = prepare_qat(to_torch(template), weight_bits=7, asymmetric_hard_swish=True)
    calibrate(module, [crops(16, shape)])
    exported = export_int8(module, template)
    assert check_parity(module, exported, crops(24, shape)[16:]).max_steps <= 1.01
    assert len(exported.model.SerializeToString()) <= size_ratio * (MODELS / name).stat().st_size
    found = files.count_ops(files.optimised(exported.model))
    assert {kind: found[kind] for kind in layers} == layers
    assert found["Gemm"] == found["FusedConv"] == 0


@pytest.mark.parametrize(
    ("form", "size_ratio", "kernel"), [("weights", 0.29, "LSTM"), ("dynamic", 0.29, "DynamicQuantizeLSTM")]
)
def test_deployed_recogniser_with_int8_lstms(form: str, size_ratio: float, kernel: str) -> None:
    """Half of what it takes with the LSTMs in float, and still the network's own readings."""
    name, shape = "en_number_mobile_v2.0_rec_infer.onnx", (3, 32, 160)
    template = lower_for_int8(load_model(MODELS / name))
    module = prepare_qat(to_torch(template), weight_bits=7, asymmetric_hard_swish=True)
    calibrate(module, [crops(16, shape)])
    exported = export_int8(module, template, recurrent=form, weight_bits=7)
    parity = check_parity(round_recurrent(module, exported.recurrent_bits), exported, crops(24, shape)[16:])
    assert parity.max_steps <= 1.01
    assert parity.agreement >= 0.9  # of the 58 steps that are not blank; 3 differ where the network is not sure
    assert len(exported.model.SerializeToString()) <= size_ratio * (MODELS / name).stat().st_size
    found = files.count_ops(files.optimised(exported.model))
    assert (found[kernel], found["MatMulIntegerToFloat"], found["QLinearConv"]) == (2, 1, 51)
