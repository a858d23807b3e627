"""Every test starts from the same seeds, on one thread: the same result in any order, on any machine."""

import gc
import math
import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

from compress.measure import latency_table
from compress.measure.operator_times import Operator, OperatorTime

# No deadline: a busy machine is no failure. The same examples each time; `--hypothesis-profile explore` draws new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("same")


# What is imported and collected stays: without this, each full collection walks its half a million objects.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Two OpenMP threads beside another busy process are many times slower than one.
    torch.set_num_threads(1)


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


def _formula(operator: Operator, threads: int) -> OperatorTime:
    """A microsecond for each thousand numbers of an operator's tensors."""
    sizes = [math.prod(shape) for shape in (*operator.inputs, operator.weight)]
    return OperatorTime(1e-6 * sum(sizes) / threads)


@pytest.fixture(autouse=True)
def _same_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
