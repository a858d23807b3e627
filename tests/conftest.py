"""Every test starts from the same seeds, on one thread: the same result in any order, on any machine."""

import functools
import gc
import math
import os
import random
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
import typer.testing
from hypothesis import settings

from compress.graph import load
from compress.measure import latency_table
from compress.measure.operator_times import Operator, OperatorTime
from compress.report import plots

# No deadline: a busy machine is no failure. The same examples each time; `--hypothesis-profile explore` draws new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("same")


# What is imported and collected stays: without this, each full collection walks its half a million objects.
gc.disable()


LONGEST = ("test_kill.py", "test_docs_first_steps.py", "test_check_trainings.py", "test_fuzz.py", "test_together.py")
"""Files whose tests come first, so that at the end no worker waits for another's."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


# Without a GPU `torch.manual_seed` notes whose stack it was called from, for each kind of device: a millisecond.
_seed_torch = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Two OpenMP threads beside another busy process are many times slower than one.
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _as_wide_as_a_pipe() -> Iterator[None]:
    """pytest's workers are told a width, to which tables would be wrapped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files are flushed to the disk so that they outlive a power cut, which no test is about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Times of operators are a formula, not measured, and kept with the tests, not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(latency_table, "measure_operator", _formula)
        yield


@pytest.fixture(scope="session", autouse=True)
def _files_canonicalised_once() -> Iterator[None]:
    """The same file is read by many tests: its canonical form is made once, and each gets a copy."""

    @functools.lru_cache(maxsize=64)
    def made(content: bytes) -> bytes:
        return canonicalise(onnx.load_model_from_string(content)).SerializeToString()

    def copied(model: onnx.ModelProto) -> onnx.ModelProto:
        return onnx.load_model_from_string(made(model.SerializeToString(deterministic=True)))

    canonicalise = load.canonicalise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "canonicalise", copied)
        yield


@pytest.fixture(scope="session", autouse=True)
def _commands_made_once() -> Iterator[None]:
    """Of the program's functions typer makes commands and their options: 25 ms that every call in a test would take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.testing, "_get_command", functools.cache(typer.main.get_command))
        yield


_write_plot = plots._written


@pytest.fixture(scope="session", autouse=True)
def _plots_unwritten() -> Iterator[None]:
    """Plots of reports are drawn, but not written as SVG, which is a third of a tiny recipe's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_written", lambda figure: "<svg/>")
        yield


@pytest.fixture
def written_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots as they are, for tests that are about them."""
    monkeypatch.setattr(plots, "_written", _write_plot)


def _formula(operator: Operator, threads: int) -> OperatorTime:
    """A microsecond for each thousand numbers of an operator's tensors."""
    sizes = [math.prod(shape) for shape in (*operator.inputs, operator.weight)]
    return OperatorTime(1e-6 * sum(sizes) / threads)


@pytest.fixture(autouse=True)
def _same_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    _seed_torch(0)
