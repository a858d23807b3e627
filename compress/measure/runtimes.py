"""Several runtimes side by side: who runs a file, who cannot, and how far their outputs are apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from compress.errors import CompressError, ModelError
from compress.measure.openvino import OpenVinoSession
from compress.measure.session import Session

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
RUNTIMES = (ONNXRUNTIME, OPENVINO)
UNOPTIMISED = "onnxruntime, optimisation off"
"""A yardstick: how far rounding alone moves the outputs of a file within one runtime."""
DIFFERENCE_IMAGES = 8
"""Images that outputs are compared on."""


class Runner(Protocol):
    """A model in some runtime."""

    output_shape: tuple[int | None, ...]
    """Of the first output; None where the file leaves a dimension open."""

    def run(self, images: np.ndarray) -> np.ndarray:
        """Compute the first output for float32 images [N, C, H, W]."""
        ...


@dataclass(frozen=True)
class Difference:
    """How far a file's first output in one runtime is from that in onnxruntime, on the same images."""

    file: str
    runtime: str
    max_abs: float
    mean_abs: float
    largest: float
    """Largest absolute value of onnxruntime's output."""
    count: int
    """Images, one at a time."""


@dataclass(frozen=True)
class Runners:
    """Every file in every runtime that takes it, in the order of files; the rest with the reason."""

    runners: dict[tuple[str, str], Runner]
    """(file, runtime) -> the file, ready to run."""
    failed: dict[tuple[str, str], str]


def check_runtimes(names: Sequence[str]) -> tuple[str, ...]:
    """The runtimes that a user names, each once.

    Raises:
        CompressError: one is unknown, or none is named.

    >>> check_runtimes(["openvino", "openvino"])
    ('openvino',)
    """
    unknown = [name for name in names if name not in RUNTIMES]
    if unknown or not names:
        raise CompressError(f"--runtime: got {', '.join(unknown)!r}. Must be of {', '.join(RUNTIMES)}, with commas.")
    return tuple(dict.fromkeys(names))


def open_runners(
    models: Mapping[str, bytes],
    input_shape: tuple[int, int, int],
    runtimes: Sequence[str],
    *,
    threads: int = 1,
    images: np.ndarray | None = None,
) -> Runners:
    """Load each file into each runtime, and run it once: what fails in one runtime is no reason to lose the rest.

    Args:
        models: name -> bytes of the file.
        input_shape: (C, H, W).
        runtimes: of RUNTIMES.
        threads: of one inference.
        images: float32 [1, C, H, W] to try each with; zeros by default.

    Raises:
        CompressError: a runtime is not installed.
        ModelError: no file can be run at all; the first reason.
    """
    image = np.zeros((1, *input_shape), np.float32) if images is None else images
    runners: dict[tuple[str, str], Runner] = {}
    failed: dict[tuple[str, str], str] = {}
    for name, model in models.items():
        for runtime in runtimes:
            try:
                runner = open_runner(runtime, model, input_shape, name=name, threads=threads)
                runner.run(image)
            except ModelError as error:
                failed[name, runtime] = str(error)
            else:
                runners[name, runtime] = runner
    if failed and not runners:
        raise ModelError(next(iter(failed.values())))
    return Runners(runners, failed)


def open_runner(
    runtime: str, model: bytes, input_shape: tuple[int, int, int] | None, *, name: str = "model", threads: int = 1
) -> Runner:
    """A file in one runtime, for one image (C, H, W) at a time; None: for images of any size and number.

    Raises:
        ModelError: the runtime cannot load it; the message names file and runtime.
        CompressError: the runtime is not installed.
    """
    if runtime == OPENVINO:
        return OpenVinoSession(model, (1, *input_shape) if input_shape else None, name=name, threads=threads)
    return Session(model, threads=threads, stop_spinning=True, name=name)


def output_differences(
    models: Mapping[str, bytes], opened: Runners, input_shape: tuple[int, int, int], *, seed: int = 0
) -> tuple[Difference, ...]:
    """How far each file's first output in other runtimes is from that in onnxruntime.

    The same seeded random images as for timing: they exercise the kernels, but say nothing of accuracy. Beside each
    file stands onnxruntime with its optimisation off: one value that rounds the other way early in an int8 network
    becomes a visible difference of its output, so this is what to compare the other figures with.
    """
    rng = np.random.default_rng(seed)
    images = [rng.standard_normal((1, *input_shape)).astype(np.float32) for _ in range(DIFFERENCE_IMAGES)]
    found = []
    for name, model in models.items():
        others = {key[1]: one for key, one in opened.runners.items() if key[0] == name and key[1] != ONNXRUNTIME}
        reference = opened.runners.get((name, ONNXRUNTIME))
        if reference is None or not others:
            continue
        expected = np.stack([reference.run(image) for image in images])
        compared = {**others, UNOPTIMISED: Session(model, optimise=False, name=name)}
        for runtime, runner in compared.items():
            outputs = np.stack([runner.run(image) for image in images])
            found.append(_difference(name, runtime, outputs, expected))
    return tuple(found)


def _difference(file: str, runtime: str, outputs: np.ndarray, expected: np.ndarray) -> Difference:
    apart = np.abs(outputs.astype(np.float64) - expected)
    largest = float(np.abs(expected).max())
    return Difference(file, runtime, float(apart.max()), float(apart.mean()), largest, len(expected))
