"""The deployed PP-OCR models: what is found in them, and that pruned files run."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compress.graph import load_model, to_onnx, to_torch
from compress.measure.cost import model_cost, module_cost
from compress.measure.session import Session
from compress.prune.apply import apply_plan
from compress.prune.channels import silence_channels
from compress.prune.groups import survey_channels
from compress.prune.plan import plan_ratio
from compress.prune.ranking import Network

MODELS = Path(__file__).parents[3] / "shared" / "data" / "models"
CASES = {
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": ((3, 48, 192), 26, 1),
    "en_number_mobile_v2.0_rec_infer.onnx": ((3, 32, 320), 28, 1),
    "ch_ppocr_mobile_v2.0_det_infer.onnx": ((3, 640, 640), 29, 1),
}
"""File -> input shape, prunable groups (the recogniser's with its two LSTMs), protected groups (the output)."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MODELS.is_dir(), reason="needs the PP-OCR models in ../shared/data/models"),
]


@pytest.mark.parametrize("name", CASES)
def test_a_third_of_every_group_is_removed_exactly_and_the_file_runs(name: str) -> None:
    shape, prunable, protected = CASES[name]
    template = load_model(MODELS / name)
    module = to_torch(template)
    survey = survey_channels(module, shape)
    assert (len(survey.groups), len(survey.protected)) == (prunable, protected)

    plan = plan_ratio(Network(module, survey.groups, shape), 0.3)
    pruned = apply_plan(module, plan, shape)
    silent = silence_channels(module, survey.groups, {key: group.removed for key, group in plan.groups.items()})
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = silent(x).numpy()
        np.testing.assert_allclose(pruned(x).numpy(), expected, atol=1e-5)

    written = to_onnx(pruned, template)
    onnx.checker.check_model(written)
    np.testing.assert_allclose(Session(written).run(x.numpy()), expected, atol=1e-5)
    cost = model_cost(written, shape, 0)
    assert (cost.params, cost.macs) == module_cost(pruned, shape)
    assert cost.macs == plan.macs_after < 0.65 * plan.macs_before


@pytest.mark.parametrize("name", CASES)
def test_ratio_zero_is_bit_exact(name: str) -> None:
    shape = CASES[name][0]
    module = to_torch(load_model(MODELS / name))
    plan = plan_ratio(Network(module, survey_channels(module, shape).groups, shape), 0.0)
    x = torch.randn(1, *shape)
    with torch.no_grad():
        assert torch.equal(apply_plan(module, plan, shape)(x), module(x))
