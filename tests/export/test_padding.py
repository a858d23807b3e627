"""Channels of zeros, calibrated, trained and exported: they stay zeros, and the rest is as without them."""

import copy
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from compress.export import check_parity, export_int8
from compress.graph import to_onnx, to_torch
from compress.graph.padding import pad_channels, paddable_sets
from compress.quant import calibrate, pacts, prepare_qat, qat_parameter_groups
from tests.quant import nets

NETWORKS = ("mobile", "swish", "resnet", "pyramid", "capped", "shared", "plain")


def padded(name: str) -> onnx.ModelProto:
    """A network with all its channels that can be padded at a multiple of 16, at least one set of them wider."""
    model = nets.template(name)
    widths = {found.name: -(-found.channels // 16) * 16 for found in paddable_sets(model) if found.channels % 16}
    assert widths
    return pad_channels(model, widths)


@cache
def calibrated(name: str) -> torch.fx.GraphModule:
    """The padded network ready to export; made once, to be looked at only."""
    module = prepare_qat(to_torch(padded(name)), weight_bits=7, asymmetric_hard_swish=True)
    calibrate(module, [nets.images().numpy()])
    return module


@pytest.mark.parametrize("name", NETWORKS)
def test_calibrated_it_computes_the_same(name: str) -> None:
    """Ranges are as without: zeros cost no error. Sums in another order may fall to the other side of a tie."""
    plain, wide = nets.calibrated(name), calibrated(name)
    for (_, one), (_, other) in zip(pacts(plain), pacts(wide), strict=True):
        torch.testing.assert_close(other.alpha, one.alpha, rtol=0.01, atol=0)
    with torch.no_grad():
        expected, found = plain(nets.images(5, seed=1)), wide(nets.images(5, seed=1))
    assert (found - expected).abs().mean() <= 2e-3 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_trained_the_new_channels_are_still_zero(name: str) -> None:
    """No gradient reaches them, and weight decay of zero is zero; all else learns."""
    template, model = nets.template(name), padded(name)
    module = copy.deepcopy(calibrated(name)).train()
    groups = qat_parameter_groups(module, lr=1e-2, weight_decay=1e-2, l2=1e-3, lr_multiplier=1.0)
    optimizer = torch.optim.Adam(groups)
    for seed in range(5):
        optimizer.zero_grad()
        module(nets.images(seed=seed)).square().sum().backward()
        optimizer.step()
    original = {tensor.name: numpy_helper.to_array(tensor) for tensor in template.graph.initializer}
    wider, learned = 0, 0
    for tensor in to_onnx(module, model).graph.initializer:
        before, now = original[tensor.name.removesuffix(".padded")], numpy_helper.to_array(tensor)
        inside = tuple(slice(size) for size in before.shape)
        learned += not np.array_equal(now[inside], before)
        wider += now.size > before.size
        rest = now.copy()
        rest[inside] = 0
        assert not rest.any(), tensor.name
    assert wider >= 2
    assert learned >= 2


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_agrees_with_the_network(name: str) -> None:
    module = calibrated(name)
    exported = export_int8(module, padded(name))
    found = check_parity(module, exported, nets.images(5, seed=1).numpy())
    assert found.max_steps <= 1.01
    assert found.max_steps_optimised <= 1.01
