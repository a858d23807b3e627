"""The tiny model and its task; each module writes its own `folder` (see `tests.pipeline.tiny`)."""

from pathlib import Path

import onnx
import pytest

from compress.graph import load_model
from compress.tasks.base import Task
from tests.pipeline import tiny


@pytest.fixture(scope="module")
def model(folder: Path) -> onnx.ModelProto:
    return load_model(folder / "model.onnx")


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    return tiny.task(folder)
