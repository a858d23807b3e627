"""The classifier's network: PP-OCR's layers, counted and computed by hand where that can be done."""

import pytest
import torch
from torch import nn

from compress.zoo.classifier import build_classifier
from compress.zoo.mobilenet_v3 import HardSigmoid, SqueezeExcite, make_divisible, small_blocks


def convs(model):
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_parameter_count_is_that_of_the_deployed_file():
    """`ch_ppocr_mobile_v2.0_cls_infer.onnx` holds 133,628 values: weights, biases, and four per batch norm."""
    model = build_classifier()
    values = sum(p.numel() for p in model.parameters())
    statistics = sum(b.numel() for name, b in model.named_buffers() if "running" in name)
    assert values + statistics == 133_628


def test_layers_are_those_of_the_deployed_file():
    """Its 11 depthwise convolutions in order: channels, kernel, stride; its stem and its last convolution."""
    depthwise = [
        (conv.out_channels, conv.kernel_size[0], conv.stride) for conv in convs(build_classifier()) if conv.groups > 1
    ]
    assert depthwise == [
        (8, 3, (2, 1)),
        (24, 3, (2, 1)),
        (32, 3, (1, 1)),
        (32, 5, (2, 1)),
        (88, 5, (1, 1)),
        (88, 5, (1, 1)),
        (40, 5, (1, 1)),
        (48, 5, (1, 1)),
        (104, 5, (2, 1)),
        (200, 5, (1, 1)),
        (200, 5, (1, 1)),
    ]
    assert convs(build_classifier())[0].stride == (2, 2)
    assert convs(build_classifier())[-1].out_channels == 200
    assert len(convs(build_classifier())) == 53


def test_output_is_probabilities_for_any_width():
    model = build_classifier().eval()
    for width in (64, 192, 320):
        with torch.no_grad():
            outputs = model(torch.randn(3, 3, 48, width))
        assert outputs.shape == (3, 2)
        torch.testing.assert_close(outputs.sum(dim=1), torch.ones(3))


def test_height_is_halved_by_each_stage_and_width_by_the_stem():
    backbone = build_classifier().eval().backbone
    with torch.no_grad():
        features = backbone.blocks(backbone.stem(torch.zeros(1, 3, 64, 192)))
    assert features.shape == (1, 32, 64 // 32, 192 // 2)


def test_hard_sigmoid_has_onnxs_slope():
    values = torch.tensor([-3.0, -2.5, -1.0, 0.0, 1.0, 2.5, 3.0])
    torch.testing.assert_close(HardSigmoid()(values), torch.tensor([0.0, 0.0, 0.3, 0.5, 0.7, 1.0, 1.0]))


def test_squeeze_excite_scales_each_channel_by_its_gate():
    """With all weights 0 and the gate's bias 1 the gate is 0.2 + 0.5 = 0.7."""
    module = SqueezeExcite(8)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(module.expand.bias)
    x = torch.randn(2, 8, 3, 5)
    torch.testing.assert_close(module(x), 0.7 * x)
    assert module.reduce.out_channels == 2


@pytest.mark.parametrize(("asked", "expected"), [(5.6, 8), (14, 16), (42, 40), (84, 88), (100.8, 104), (11, 16)])
def test_make_divisible(asked, expected):
    assert make_divisible(asked) == expected
    assert make_divisible(asked) >= 0.9 * asked


def test_residuals_are_where_shape_stays():
    """Blocks 3, 5, 6, 8, 10 and 11 of the deployed network, and block 7, whose 40 and 48 channels are both 16 here."""
    blocks = build_classifier().backbone.blocks
    assert [index for index, block in enumerate(blocks, start=1) if block.residual] == [3, 5, 6, 7, 8, 10, 11]


def test_eleven_blocks_with_four_strided():
    blocks = small_blocks([(2, 1)] * 4)
    assert [index for index, block in enumerate(blocks) if block.stride != (1, 1)] == [0, 1, 3, 8]


def test_classes_and_scale_are_options():
    assert build_classifier(scale=0.5, classes=4).fc.out_features == 4
    assert sum(p.numel() for p in build_classifier(scale=0.5).parameters()) > 129_356


def test_initial_weights_are_seeded():
    torch.manual_seed(0)
    model = build_classifier()
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), build_classifier().parameters(), strict=True))


@pytest.mark.slow
def test_initial_weights_let_it_learn():
    model = build_classifier()
    images = torch.randn(8, 3, 48, 96)
    images[4:, :, :24] += 1
    targets = torch.tensor([0] * 4 + [1] * 4)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = -model(images).gather(1, targets[:, None]).log().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
