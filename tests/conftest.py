"""Every test starts from the same seeds, on one thread: the same result in any order, on any machine."""

import random

import numpy as np
import pytest
import torch
from hypothesis import settings

# No deadline: a busy machine is no failure. The same examples each time; `--hypothesis-profile explore` draws new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Two OpenMP threads beside another busy process are many times slower than one.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
