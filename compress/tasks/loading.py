"""Batches of training images made beside the network: by a thread, or by worker processes."""

import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from compress.data.prefetch import prefetch
from compress.errors import CompressError, TrainingError, killed_worker
from compress.tasks.base import Share

P = TypeVar("P")
B = TypeVar("B")


def load_batches(make: Callable[[P], B], parts: Iterable[P], workers: int) -> Iterator[B]:
    """Make a batch of each part, in their order; the same ones whatever the number of workers.

    Args:
        make: part -> batch; in worker processes it works on copies of what it holds.
        parts: what each batch is of; made here, a few batches ahead.
        workers: processes; 0 for a thread of this one, which is enough where the network is slower than one core's
            decoding and augmenting.

    Raises:
        CompressError: there are workers, but the system cannot fork.
        Exception: whatever `make` raises, in place of the batch.
    """
    if workers == 0:
        return prefetch(make(part) for part in parts)
    return _from_processes(make, parts, workers)


def share_of(batch: np.ndarray, share: Share) -> np.ndarray:
    """A process's share of a batch [N]: every n-th of its images.

    Raises:
        TrainingError: a batch has fewer images than there are processes.

    >>> share_of(np.arange(5), (0, 2)).tolist(), share_of(np.arange(5), (1, 2)).tolist()
    ([0, 2, 4], [1, 3])
    """
    rank, count = share
    if len(batch) < count:
        raise TrainingError(
            f"torchrun: {count} processes share a batch of {len(batch)} images. Use at most {len(batch)} processes, "
            "or a larger batch_size."
        )
    return batch[rank::count]


def _from_processes(make: Callable[[P], B], parts: Iterable[P], workers: int) -> Iterator[B]:
    if "fork" not in multiprocessing.get_all_start_methods():
        raise CompressError(f"workers: got {workers}. This system cannot fork processes: must be 0, a thread.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of more workers than cores
        loader = DataLoader(
            _Maker(make),
            sampler=_Parts(parts),
            batch_size=None,
            num_workers=workers,
            multiprocessing_context="fork",
            generator=torch.Generator(),  # else it draws from the one that training uses
        )
    try:
        for made in _started(loader):
            if isinstance(made, Exception):
                raise made
            yield made
    except RuntimeError as error:
        if line := killed_worker(error):
            raise CompressError(line) from error
        raise


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's iterator, whose processes are forked here, while OpenCV has no threads: a copy of its pool of them
    would wait for threads that a forked process does not have."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of more workers than cores
            return iter(loader)
    finally:
        cv2.setNumThreads(threads)


class _Maker(Dataset[Any]):
    """A data set whose index is a part and whose item is the batch."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __getitem__(self, part: Any) -> Any:
        try:
            return self._make(part)
        except Exception as error:  # else torch wraps it into a text of its own
            return error


class _Parts(Sampler[Any]):
    def __init__(self, parts: Iterable[Any]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[Any]:
        return iter(self._parts)
