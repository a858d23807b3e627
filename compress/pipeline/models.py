"""The model that a stage starts from, however it is named."""

import fnmatch
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from compress.artifacts import fingerprint
from compress.compute.element_types import has_half_recurrent, to_float32
from compress.data.labels import name_some
from compress.errors import CompressError, InputSizeError, ModelError, PlanError
from compress.graph import from_torch, load_model, read_model
from compress.progress import Note
from compress.recipe.task_settings import INPUTS

Shape = tuple[int, int, int]
"""(C, H, W) of an image."""
DEFAULT_SHAPE = (3, 48, 192)
"""Of the direction classifier."""
OTHER_SIZES = ((3, 48, 320), (3, 64, 256), (3, 224, 224), (3, 32, 100), (3, 32, 128), (3, 512, 512), (1, 32, 100))
"""What is tried after the sizes of the three kinds, where a model leaves its size open and takes none of them."""
PARALLEL = "module."
"""What DistributedDataParallel and DataParallel put before every name of a state dict."""
_OBJECTS = re.compile(r"Unsupported global: GLOBAL (\S+)|TorchScript archives")
"""What torch says of a file of more than weights, which it does not unpickle."""


def open_model(
    spec: str,
    weights: Path | None = None,
    input_shape: tuple[int, int, int] | None = None,
    on_note: Note | None = None,
) -> onnx.ModelProto:
    """The canonical model that a user names: an .onnx file, or `package.module:factory` for a PyTorch module.

    Args:
        spec: path, or factory that is called without arguments.
        weights: state dict for the factory's module, .safetensors, or .pt (read without unpickling objects); one of
            DistributedDataParallel, too, which begins every name with `module.`.
        input_shape: (C, H, W) of the example a PyTorch module is exported with; default the first usual one that it
            takes.
        on_note: receives what was changed of a file so that it can be trained (see `compress.graph.load_model`), which
            exporter a module needed (see `compress.graph.from_torch`), and that names of weights were changed.

    Raises:
        ModelError: nothing usable is there.
    """
    if not is_factory(spec):
        if weights is not None:
            raise ModelError(f"--weights: {weights} goes with package.module:factory; {spec} holds its own weights.")
        return load_model(Path(spec), on_note)
    module = call_factory(spec)
    if not isinstance(module, nn.Module):
        raise ModelError(f"{spec}: returned {type(module).__name__}. Must return a torch.nn.Module.")
    if weights is not None:
        _load_weights(module, weights, on_note)
    sizes = (input_shape,) if input_shape else (DEFAULT_SHAPE, *INPUTS.values(), *OTHER_SIZES)
    return _export(module, sizes, on_note)


def _export(module: nn.Module, sizes: Sequence[Shape], on_note: Note | None) -> onnx.ModelProto:
    """A module's export, with an image of the first size that it takes.

    Raises:
        InputSizeError: it takes none; of the first is said why.
        ModelError: it cannot be exported.
    """
    problems: list[InputSizeError] = []
    for size in dict.fromkeys(sizes):
        try:
            return from_torch(module, torch.zeros(1, *size), on_note=on_note)
        except InputSizeError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    tried = f"tried an image of {' x '.join(map(str, sizes[0]))} and {len(problems) - 1} other usual sizes"
    said = f"{str(problems[0]).removesuffix('.')}; {tried}. Name the size that it takes: --input C,H,W"
    raise InputSizeError(f"{said} (task.input in a recipe).") from problems[0]


def open_any(
    spec: str,
    weights: Path | None = None,
    input_shape: tuple[int, int, int] | None = None,
    on_note: Note | None = None,
) -> bytes:
    """The bytes of a model to run as it is: a file of any kind, int8 included, or a PyTorch module's export.

    One that onnxruntime does not survive, of recurrent layers in half precision, is taken up to float32.

    Raises:
        ModelError: nothing usable is there.
    """
    if is_factory(spec):
        return open_model(spec, weights, input_shape, on_note).SerializeToString()
    if weights is not None:
        raise ModelError(f"--weights: {weights} goes with package.module:factory; {spec} holds its own weights.")
    model = read_model(Path(spec))
    if has_half_recurrent(model):
        model = to_float32(model)
        if on_note:
            on_note(f"{spec}: onnxruntime crashes on recurrent layers in half precision: run in float32.")
    return model.SerializeToString()


def is_factory(spec: str) -> bool:
    """Whether a model is named as `package.module:factory`."""
    return ":" in spec and not spec.endswith(".onnx") and not Path(spec).exists()


def call_factory(spec: str, *arguments: Any, **options: Any) -> Any:
    """Import `package.module:name` (the current folder included) and call it.

    Raises:
        CompressError: it is not there, or fails.
    """
    module_name, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory = cast(Callable[..., Any], getattr(importlib.import_module(module_name), name))
    except Exception as error:  # the user's module may raise anything while it is imported
        raise CompressError(
            f"{spec}: cannot be imported ({_reason(error)}). Expected package.module:name, found from here."
        ) from error
    try:
        return factory(*arguments, **options)
    except CompressError:
        raise
    except Exception as error:  # so may the call
        raise CompressError(f"{spec}: failed when called ({_reason(error)}). --debug shows where.") from error


def _reason(error: Exception) -> str:
    """What an error says, on one line: its kind, then up to three lines of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join([f"{type(error).__name__}:", *lines[:3]]) if lines else type(error).__name__


def _load_weights(module: nn.Module, path: Path, on_note: Note | None) -> None:
    """Load a state dict; every name and size must match, but for DistributedDataParallel's prefix.

    Raises:
        ModelError: there is no such file, it holds no state dict, or another module's; what is missing, unexpected or
            of another size is named.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file. Expected weights as .safetensors or .pt.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        wanted = module.state_dict()
        if _has_prefix(wanted, state):
            consume_prefix_in_state_dict_if_present(state, PARALLEL)
            if on_note:
                on_note(f"{path}: every name begins with `{PARALLEL}`, as DistributedDataParallel saves it: left out.")
        if unfit := _unfit(wanted, state):
            raise ModelError(
                f"{path}: does not fit {type(module).__name__}: {unfit}. Expected the state_dict of that module."
            )
        module.load_state_dict(state)
    except CompressError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds; most mean the same to the user
        if (found := _OBJECTS.search(str(error))) is not None:
            raise ModelError(
                f"{path}: holds a whole module or another object ({found[1] or 'TorchScript'}), not weights alone. "
                "Save model.state_dict() with torch.save, and give that file."
            ) from error
        raise ModelError(
            f"{path}: cannot be loaded into {type(module).__name__} ({_reason(error)}). "
            "Expected the state_dict of that module."
        ) from error


def _has_prefix(wanted: Mapping[str, Any], state: object) -> bool:
    """Whether every name of a state dict begins with DistributedDataParallel's prefix, and the module has none of them.

    >>> _has_prefix({"a": 0}, {"module.a": 0}), _has_prefix({"a": 0, "b": 0}, {"module.a": 0, "b": 0})
    (True, False)
    """
    return (
        isinstance(state, Mapping)
        and bool(state)
        and all(str(name).startswith(PARALLEL) for name in state)
        and not state.keys() & wanted.keys()
    )


def _unfit(wanted: Mapping[str, Any], state: object) -> str:
    """How a state dict differs from a module's, by name; empty where it does not.

    >>> _unfit({"a": torch.zeros(2), "b": torch.zeros(3)}, {"b": torch.zeros(4), "c": torch.zeros(1)})
    '1 missing (a), 1 unexpected (c), 1 of another size (b: [4], must be [3])'
    >>> _unfit({"a": torch.zeros(2)}, {"epoch": 3, "model": {"a": torch.zeros(2)}})
    "it holds a dictionary of epoch, model. Save what lies in 'model' alone"
    """
    if not isinstance(state, Mapping):
        return f"it holds a {type(state).__name__}"
    if nested := [
        name
        for name, value in state.items()
        if isinstance(value, Mapping) and (value.keys() & wanted.keys() or _has_prefix(wanted, value))
    ]:
        return f"it holds a dictionary of {name_some(list(map(str, state)))}. Save what lies in {nested[0]!r} alone"
    differing = {
        "missing": [name for name in wanted if name not in state],
        "unexpected": [str(name) for name in state if name not in wanted],
        "of another size": [
            f"{name}: {list(state[name].shape)}, must be {list(value.shape)}"
            for name, value in wanted.items()
            if isinstance(state.get(name), Tensor) and state[name].shape != value.shape
        ],
    }
    return ", ".join(f"{len(names)} {how} ({name_some(names)})" for how, names in differing.items() if names)


def same_sizes(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether two models' weights have the same shapes, as of a model that was trained and not pruned."""
    shapes = [sorted(tuple(value.dims) for value in model.graph.initializer) for model in (one, other)]
    return shapes[0] == shapes[1]


def model_identity(model: onnx.ModelProto) -> str:
    """Fingerprint of a model's content."""
    return fingerprint(model.SerializeToString(deterministic=True))


def expand_names(module: nn.Module, patterns: Sequence[str], where: str) -> tuple[str, ...]:
    """The layers that patterns name; `*` matches any text.

    Raises:
        PlanError: a pattern matches no layer.
    """
    layers = [name for name, child in module.named_modules() if name and next(child.parameters(), None) is not None]
    found: list[str] = []
    for pattern in patterns:
        matches = fnmatch.filter(layers, pattern)
        if not matches:
            raise PlanError(
                f"{where}: {pattern!r} matches no layer. `compress inspect` lists them, e.g. {', '.join(layers[:3])}."
            )
        found += matches
    return tuple(dict.fromkeys(found))


def as_graph_module(module: nn.Module) -> fx.GraphModule:
    """Say that a module is the imported graph that it was made from, pruned or not."""
    assert isinstance(module, fx.GraphModule)
    return module
