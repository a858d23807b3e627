"""`compress run` says before it starts what it will take, and runs also what cannot be timed."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from compress.cli import app
from compress.graph import from_torch, save_model
from tests.pipeline import tiny

QUICK = ("finetune.epochs=1", "quantize.epochs=0", "compare.rounds=3", "threads=1")


def run(folder: Path, *changes: str, command: str = "run") -> Result:
    given = [part for change in (*QUICK, *changes) for part in ("--set", change)]
    return CliRunner().invoke(
        app, [command, str(folder / "recipe.yaml"), *given, "--set", f"out={folder / 'out'}"], prog_name="compress"
    )


class Two(nn.Module):
    """Probabilities, and a mean that nothing is done with."""

    def __init__(self) -> None:
        super().__init__()
        self.network = tiny.Tiny()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(x), x.mean((2, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.recipe(tiny.write_inputs(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_it_is_said_and_kept_stages_are_not_timed_again(folder: Path) -> None:
    first = run(folder)
    assert first.exit_code == 0, first.output
    assert "stage 2 of 5, prune: to macs 0.7, about " in first.stderr
    assert "(run: about " in first.stderr
    again = run(folder)
    assert again.exit_code == 0, again.output
    assert "about" not in again.stderr
    checked = run(folder, command="check")
    assert "stage 1 of 5, sensitivity: 6 networks on 24 images each, done; kept if nothing" in checked.stdout


@pytest.mark.slow
def test_a_network_of_two_outputs(folder: Path) -> None:
    save_model(from_torch(Two(), torch.zeros(1, *tiny.SHAPE)), folder / "model.onnx")
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "ms to train on it" in result.stderr


def test_what_cannot_be_timed_is_run_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr("compress.pipeline.preparing.estimate.measure", fails)
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert "How long the run takes is not known: RuntimeError: no kernel" in result.stderr
