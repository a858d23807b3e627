"""Run an imported module once, so that what it cannot compute is one clear error, with the node's name."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.compute.modes import evaluating
from compress.errors import CompressError, ModelError, reason


def check_runs(module: nn.Module, input_shape: Sequence[int]) -> None:
    """Run a module, in evaluation mode, on one black image of `input_shape` (C, H, W).

    Raises:
        ModelError: it fails; the message names the node, where it is an imported module's.
    """
    device = next((parameter.device for parameter in module.parameters()), None)
    run = _Naming(module) if isinstance(module, fx.GraphModule) else None
    try:
        with evaluating(module), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PyTorch advises is for those who run the network in earnest
            image = torch.zeros(1, *input_shape, device=device)
            module(image) if run is None else run.run(image)
    except (CompressError, MemoryError):
        raise
    except Exception as error:  # PyTorch raises many kinds; all mean the same to the user
        node = f" at {run.current}" if run is not None and run.current else ""
        raise ModelError(
            f"the network fails on an image of {' x '.join(map(str, input_shape))}{node} ({reason(error)}). "
            "Check the input's size, or export the model again."
        ) from error


def run_quietly(module: nn.Module, *images: Tensor) -> Any:
    """What a module computes of images; if it fails, without the source that an fx module prints to stderr then.

    Nor does fx describe the node for its log: that imports PyTorch's compiler, which takes a second.
    """
    if not isinstance(module, fx.GraphModule):
        return module(*images)
    run = fx.Interpreter(module)
    run.extra_traceback = False
    return run.run(*images)


class _Naming(fx.Interpreter):
    """Remembers which ONNX node it is computing."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False  # the node is named in our own words
        self.current = ""

    def run_node(self, n: fx.Node) -> Tensor:
        """Run a node, its name noted before."""
        self.current = f"{n.meta['op_type']} {n.meta['onnx']!r}" if "op_type" in n.meta else ""
        result: Tensor = super().run_node(n)
        return result
