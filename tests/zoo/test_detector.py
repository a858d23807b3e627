"""The detector's network: the deployed file's layers, maps computed by hand, and its way through ONNX and back."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compress.errors import ModelError
from compress.graph import from_torch, load_model, to_torch
from compress.prune.groups import survey_channels
from compress.zoo.detector import FeaturePyramid, MapHead, build_detector
from compress.zoo.mobilenet_v3 import MobileNetV3Large, SqueezeExcite

DEPLOYED = Path(__file__).parents[3] / "shared" / "data" / "models" / "ch_ppocr_mobile_v2.0_det_infer.onnx"
CONVOLUTIONS = ("Conv", "ConvTranspose")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_detector().eval()


@pytest.fixture(scope="module")
def exported(model: nn.Module) -> onnx.ModelProto:
    """Its file, to be looked at only."""
    return from_torch(model, torch.zeros(1, 3, 64, 64))


def values(module: nn.Module) -> int:
    """Weights, biases, and four values for each channel of a batch norm."""
    statistics = sum(b.numel() for name, b in module.named_buffers() if "running" in name)
    return sum(p.numel() for p in module.parameters()) + statistics


def convolutions(model: onnx.ModelProto) -> list[tuple[object, ...]]:
    """Of each convolution in order: operator, shape of the weight, strides, pads and groups."""
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in CONVOLUTIONS:
            attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
            options = [onnx.helper.get_attribute_value(attribute) for attribute in attributes]
            found.append((node.op_type, shapes[node.input[1]], *options))
    return found


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.slow
@pytest.mark.skipif(not DEPLOYED.exists(), reason="needs PP-OCR's detector")
def test_every_convolution_is_that_of_the_deployed_file(model, exported):
    deployed = load_model(DEPLOYED)
    assert convolutions(exported) == convolutions(deployed)
    assert sorted(kinds(exported)) == sorted(kinds(deployed))
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in deployed.graph.initializer}
    trained = [node for node in deployed.graph.node if node.op_type in (*CONVOLUTIONS, "BatchNormalization")]
    held = sum(sizes[name] for node in trained for name in node.input[1:])
    assert values(model) - values(model.threshold) == held


def test_value_count_is_that_of_the_deployed_file(model):
    """`ch_ppocr_mobile_v2.0_det_infer.onnx` holds 572,441 values; the threshold's branch exists in training only."""
    assert values(model) - values(model.threshold) == 572_441


def test_stages_of_the_backbone(model):
    """Strides 4, 8, 16, 32; at width 0.5 24, 40, 112 and 960 channels become 16, 24, 56 and 480."""
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(feature.shape[1:]) for feature in features] == [(16, 16, 24), (24, 8, 12), (56, 4, 6), (480, 2, 3)]
    assert model.backbone.channels == (16, 24, 56, 480)


def test_squeeze_excite_is_an_option_of_eight_blocks():
    with_se, without = (MobileNetV3Large(scale=0.5, se=se) for se in (True, False))
    parts = [part for part in with_se.modules() if isinstance(part, SqueezeExcite)]
    assert [part.expand.out_channels for part in parts] == [40, 64, 64, 240, 336, 336, 480, 480]
    assert not any(isinstance(part, SqueezeExcite) for part in without.modules())
    # Two 1x1 convolutions with biases each: c * (c // 4) weights twice, c // 4 + c biases.
    extra = sum(2 * c * (c // 4) + c // 4 + c for c in (40, 64, 64, 240, 336, 336, 480, 480))
    assert values(with_se) - values(without) == extra


def test_inner_channels_decide_pyramid_and_heads():
    """By hand: laterals and smoothing, and for each head a 3x3, a batch norm, and two transposed convolutions."""

    def behind_backbone(inner: int) -> int:
        narrow = inner // 4
        pyramid = inner * (16 + 24 + 56 + 480) + 4 * 9 * inner * narrow
        head = 9 * inner * narrow + 4 * narrow + (4 * narrow * narrow + narrow) + 4 * narrow + (4 * narrow + 1)
        return pyramid + 2 * head

    for inner in (96, 256):
        network = build_detector(inner_channels=inner)
        assert values(network) - values(network.backbone) == behind_backbone(inner)


@pytest.mark.parametrize("inner", [0, 30, -4])
def test_inner_channels_that_cannot_be_divided_are_refused(inner):
    with pytest.raises(ModelError, match=rf"inner_channels: got {inner}. Must be a positive multiple of 4."):
        build_detector(inner_channels=inner)


def test_pyramid_adds_coarse_to_fine_and_stacks_coarsest_first():
    """Laterals that copy and smoothing that takes the middle pixel: level i holds its feature and all coarser ones."""
    pyramid = FeaturePyramid((4, 4, 4, 4), 4)
    for lateral, smooth in zip(pyramid.laterals, pyramid.smooth, strict=True):
        lateral.weight.data = torch.eye(4)[:, :, None, None]
        smooth.weight.data = torch.zeros(1, 4, 3, 3)
        smooth.weight.data[0, 0, 1, 1] = 1
    features = [torch.randn(2, 4, 16 // 2**i, 24 // 2**i) for i in range(4)]
    enlarged = [F.interpolate(f[:, :1], size=(16, 24), mode="nearest") for f in features]
    expected = [sum(enlarged[level:]) for level in (3, 2, 1, 0)]
    torch.testing.assert_close(pyramid(tuple(features)), torch.cat(expected, dim=1))


def test_head_makes_a_map_of_probabilities_four_times_as_large():
    with torch.no_grad():
        found = MapHead(16)(torch.randn(2, 16, 5, 7))
    assert found.shape == (2, 1, 20, 28)
    assert ((found > 0) & (found < 1)).all()


def test_in_training_the_third_map_is_the_steep_difference_of_the_others():
    model = build_detector(scale=0.35, inner_channels=16)
    maps = model(torch.randn(2, 3, 64, 32))
    assert maps.shape == (2, 3, 64, 32)
    probability, threshold, binary = maps.unbind(1)
    torch.testing.assert_close(binary, 1 / (1 + torch.exp(-50 * (probability - threshold))))


def test_in_evaluation_there_is_the_probability_alone(model):
    with torch.no_grad():
        found = model(torch.randn(2, 3, 32, 96))
        expected = model.probability(model.neck(model.backbone(torch.zeros(1, 3, 32, 32))))
        torch.testing.assert_close(model(torch.zeros(1, 3, 32, 32)), expected)
    assert found.shape == (2, 1, 32, 96)


def test_through_onnx_and_back_at_other_sizes_and_batches_it_is_the_same(model, exported):
    again = to_torch(exported)
    images = torch.randn(2, 3, 96, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images), atol=1e-5, rtol=0)
    assert (kinds(exported).count("BatchNormalization"), kinds(exported).count("ConvTranspose")) == (49, 2)


def test_all_can_be_pruned_but_the_output(exported):
    survey = survey_channels(to_torch(exported), (3, 64, 64))
    assert 29 <= len(survey.groups) <= 31
    assert list(survey.protected.values()) == ["defines the output"]


def test_initial_weights_are_seeded():
    torch.manual_seed(0)
    model = build_detector(scale=0.35, inner_channels=32)
    torch.manual_seed(0)
    same = build_detector(scale=0.35, inner_channels=32)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))


@pytest.mark.slow
def test_initial_weights_let_it_learn():
    model = build_detector(scale=0.35, inner_channels=32)
    images = torch.randn(4, 3, 64, 64)
    images[:, :, 16:48, 8:40] += 2
    targets = torch.zeros(4, 64, 64)
    targets[:, 16:48, 8:40] = 1
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(24):
        loss = F.binary_cross_entropy(model(images)[:, 0], targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
