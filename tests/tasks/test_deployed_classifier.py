"""The deployed PP-OCR classifier on real word crops: our preprocessing gives the accuracy measured independently."""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper

from compress.measure.session import Session
from compress.tasks.classification import DirectionTask
from compress.zoo.classifier import build_classifier

DATA = Path(__file__).parents[3] / "shared" / "data"
MODEL = DATA / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx"
LABELS = DATA / "rec" / "iiit5k_val" / "labels.txt"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MODEL.exists() and LABELS.exists()), reason="needs the PP-OCR classifier and iiit5k_val"),
]


def test_accuracy_on_real_crops_is_the_published_measurement_to_the_image():
    """1065 of 1200 = 0.8875, as PaddleOCR's own preprocessing and onnxruntime score it."""
    score = DirectionTask([], [LABELS], directions=True).evaluate(Session(MODEL).run)
    assert (score.count, score.metric) == (1200, 0.8875)


def test_our_network_with_the_deployed_weights_computes_what_the_file_computes():
    """Same layers in the same order: the weights fit one by one, and the outputs agree."""
    graph = onnx.load(MODEL).graph
    values = {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    convs = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    norms = [list(node.input[1:5]) for node in graph.node if node.op_type == "BatchNormalization"]
    model = build_classifier().eval()
    ours = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    our_norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for module, name in zip(ours, convs, strict=True):
            module.weight.copy_(torch.tensor(values[name]))
            if module.bias is not None:
                module.bias.copy_(torch.tensor(values[name.replace("weights", "offset")]))
        for module, names in zip(our_norms, norms, strict=True):
            parts = (module.weight, module.bias, module.running_mean, module.running_var)
            for part, name in zip(parts, names, strict=True):
                part.copy_(torch.tensor(values[name]))
        model.fc.weight.copy_(torch.tensor(values["fc_0.w_0"]).T)
        model.fc.bias.copy_(torch.tensor(values["fc_0.b_0"]))
        images = torch.randn(3, 3, 48, 192)
        outputs = model(images)
    torch.testing.assert_close(outputs, torch.from_numpy(Session(MODEL).run(images.numpy())), atol=1e-5, rtol=0)
