"""What the program makes of one model: whether it is inspected, imported, pruned exactly and quantised with parity."""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import fx
from typer.testing import CliRunner

from compress.cli import app
from compress.errors import CompressError, TrainingError
from compress.export import check_parity, export_int8
from compress.graph import load_model, save_model, to_onnx, to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.session import Session
from compress.prune.channels import remove_channels, silence_channels
from compress.prune.groups import find_groups
from compress.quant.calibrate import calibrate
from compress.quant.prepare import prepare_qat
from compress.quant.recurrent_weights import round_recurrent

TOLERANCE = 1e-4
"""Of an output's largest value: sums in another order."""


@dataclass(frozen=True)
class Case:
    """A small network in the spelling of one exporter."""

    exporter: str
    family: str
    name: str
    build: Callable[[], onnx.ModelProto]
    shape: tuple[int, int, int] = (3, 32, 64)
    """(C, H, W) of an image."""


@dataclass(frozen=True)
class Row:
    """What became of a case; what is refused is refused in the one line of `why`."""

    inspected: bool
    imported: bool
    trained: bool
    """Whether a gradient comes from the first output to the weights."""
    prunable: int | None
    """Groups of channels that were pruned exactly; None where it cannot be imported."""
    int8: bool
    why: str = ""


def judge(case: Case) -> Row:
    """Take a case through the program; anything that is wrong, not refused, is an AssertionError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save_model(case.build(), path)
        inspected = _inspect(path)
        try:
            model = load_model(path)
            module = to_torch(model)
            session = Session(path, optimise=False)
        except CompressError as error:
            return Row(inspected, False, False, None, False, _one_line(error, path))
        images = np.random.default_rng(0).standard_normal((2, *case.shape)).astype(np.float32)
        _check_same(module, session, path, images)
        trained = _trains(module, images)
        prunable = _prune(module, model, case.shape)
        try:
            _quantise(model, images)
        except CompressError as error:
            return Row(inspected, True, trained, prunable, False, _one_line(error, path))
        return Row(inspected, True, trained, prunable, True)


def _one_line(error: CompressError, path: Path) -> str:
    text = str(error).removeprefix(f"{path}: ").split(" Supported operators: ")[0]
    assert "\n" not in text, text
    return text


def _inspect(path: Path) -> bool:
    result = CliRunner().invoke(app, ["inspect", str(path)], prog_name="compress")
    assert result.exit_code == 0, result.output
    assert "operators: " in result.output
    return True


def _outputs(module: torch.nn.Module, images: np.ndarray) -> list[np.ndarray]:
    with torch.no_grad():
        results = module(torch.from_numpy(images))
    return [one.numpy() for one in (results if isinstance(results, tuple) else (results,))]


def _assert_near(found: np.ndarray, wanted: np.ndarray, what: str) -> None:
    assert found.shape == wanted.shape, f"{what}: {found.shape} and {wanted.shape}"
    largest = float(np.abs(wanted).max(initial=0.0)) or 1.0
    assert float(np.abs(wanted).max(initial=0.0)) > 1e-6, f"{what}: all zeros prove nothing"
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * largest, err_msg=what)


def _check_same(module: fx.GraphModule, session: Session, path: Path, images: np.ndarray) -> None:
    """The imported network computes what onnxruntime makes of the file as it was exported."""
    wanted = session.run(images)
    if wanted.dtype.kind == "f":
        half = onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in onnx.load(path).graph.initializer}
        found = _outputs(module, images)[0]
        if half:  # the file's own arithmetic is as coarse as this
            np.testing.assert_allclose(found, wanted, atol=5e-3 * float(np.abs(wanted).max()))
        else:
            _assert_near(found, wanted, "import")


def _trains(module: fx.GraphModule, images: np.ndarray) -> bool:
    """Whether a gradient comes from the first output to the weights; the module is left as it was."""
    trained = copy.deepcopy(module).train()
    results = trained(torch.from_numpy(images))
    first = results[0] if isinstance(results, tuple) else results
    if not first.requires_grad:
        return False
    try:
        (first * torch.arange(first.numel()).reshape(first.shape)).sum().backward()
    except TrainingError:
        return False
    gradients = [parameter.grad for parameter in trained.parameters()]
    return any(gradient is not None and bool(gradient.any()) for gradient in gradients)


def _prune(module: fx.GraphModule, model: onnx.ModelProto, shape: tuple[int, int, int]) -> int:
    """Take half of every group's channels out: the same as silencing them, and the same in the file."""
    groups = find_groups(module, shape)
    removed = {group.name: _half(group.channels, group.blocks) for group in groups}
    if not groups:
        return 0
    pruned, silent = remove_channels(module, groups, removed), silence_channels(module, groups, removed)
    images = np.random.default_rng(1).standard_normal((2, *shape)).astype(np.float32)
    found, wanted = _outputs(pruned, images), _outputs(silent, images)
    for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
        if one.dtype.kind == "f" and other.any():
            _assert_near(one, other, f"pruned, output {place}")
    assert isinstance(pruned, fx.GraphModule)
    written = Session(to_onnx(pruned, model), optimise=False).run(images)
    if written.dtype.kind == "f" and written.any():
        _assert_near(written, found[0], "pruned, written")
    return len(groups)


def _half(channels: int, blocks: int) -> list[int]:
    """The odd channels of each block."""
    size = channels // blocks
    return [block * size + channel for block in range(blocks) for channel in range(1, size, 2)]


def _quantise(model: onnx.ModelProto, images: np.ndarray) -> None:
    """Calibrate, write the int8 file, and compare it with its network, tensor by tensor.

    Raises:
        CompressError: it cannot be quantised, or the file is not its network.
    """
    lowered = lower_for_int8(model)
    module = prepare_qat(to_torch(lowered), weight_bits=7, asymmetric_hard_swish=True, two_sided=True)
    calibrate(module, [images])
    exported = export_int8(module, lowered, recurrent="weights")
    check_parity(round_recurrent(module, exported.recurrent_bits), exported, images)
