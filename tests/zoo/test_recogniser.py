"""The recogniser's network: PP-OCR's layers, its time steps, and its way through ONNX and back."""

import onnx
import pytest
import torch
from torch import nn

from compress.data.charset import read_charset
from compress.graph import from_torch, to_torch
from compress.prune.groups import survey_channels
from compress.zoo import models_folder
from compress.zoo.recogniser import build_recogniser


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_recogniser().eval()


@pytest.fixture(scope="module")
def exported(model: nn.Module) -> onnx.ModelProto:
    """Its file, to be looked at only."""
    return from_torch(model, torch.zeros(1, 3, 32, 320))


def test_parameter_count_is_that_of_the_deployed_file():
    """`en_number_mobile_v2.0_rec_infer.onnx` has 448,161 weights and biases with its 97 classes."""
    assert sum(p.numel() for p in build_recogniser(classes=97).parameters()) == 448_161


def test_depthwise_layers_are_those_of_the_deployed_file(model):
    """Channels at width 0.5, kernels, and strides that keep the width."""
    found = [
        (conv.out_channels, conv.kernel_size[0], conv.stride)
        for conv in model.modules()
        if isinstance(conv, nn.Conv2d) and conv.groups > 1
    ]
    assert found[:4] == [(8, 3, (1, 1)), (40, 3, (2, 1)), (48, 3, (1, 1)), (48, 5, (2, 1))]
    assert found[-3:] == [(144, 5, (2, 1)), (288, 5, (1, 1)), (288, 5, (1, 1))]


@pytest.mark.parametrize(("width", "steps"), [(320, 80), (160, 40), (64, 16)])
def test_a_step_is_four_columns_wide_and_holds_probabilities(model, width, steps):
    with torch.no_grad():
        outputs = model(torch.randn(2, 3, 32, width))
    assert outputs.shape == (2, steps, 96)
    torch.testing.assert_close(outputs.sum(dim=2), torch.ones(2, steps))


def test_classes_are_the_charset_that_ships_with_a_space_and_the_blank():
    assert read_charset(models_folder() / "latin.txt", True).classes == 96
    assert build_recogniser().fc.out_features == 96


def test_through_onnx_and_back_at_other_widths_and_batches_it_is_the_same(model, exported):
    again = to_torch(exported)
    images = torch.randn(3, 3, 32, 128)
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images), atol=1e-5, rtol=0)
    kinds = [type(module).__name__ for module in again.modules()]
    assert (kinds.count("LSTM"), kinds.count("BatchNorm2d"), kinds.count("Linear")) == (2, 35, 1)


def test_hidden_units_of_both_lstms_can_be_pruned_and_only_the_output_is_protected(exported):
    survey = survey_channels(to_torch(exported), (3, 32, 320))
    assert [group.channels for group in survey.groups if "lstm" in group.name] == [96, 96]
    assert list(survey.protected.values()) == ["defines the output"]


def test_width_and_units_are_options():
    small = build_recogniser(classes=11, scale=0.35, units=16)
    assert small.lstm.hidden_size == 16
    assert small.fc.in_features == 32
    assert small.backbone.out_channels == 200
