"""What is in a model: any ONNX file, int8 ones included, or a PyTorch module's export; what is unknown is said."""

import collections
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from torch import fx, nn

from compress.artifacts import Cost
from compress.compute.element_types import type_name
from compress.errors import CompressError, ModelError, UnsupportedOpError, reason
from compress.graph import check_runs, deployed_bytes, is_quantised, load_model, read_model, to_torch
from compress.graph.constants import free_constants
from compress.graph.kept import kept_nodes
from compress.measure.cost import layer_positions, model_cost, module_cost
from compress.pipeline.facts import Shape, declared_input, look_at, real_inputs, size_said
from compress.pipeline.models import is_factory, open_model
from compress.prune.groups import survey_channels
from compress.prune.sensitivity import group_macs
from compress.report.inspection import GroupSummary, Inspection

QUANTISED = "it is quantised already: start from the fp32 model that it was made from"


@dataclass(frozen=True)
class _Size:
    """(C, H, W) of the image to look at a model with."""

    shape: tuple[int, ...] | None
    said: str = ""
    """What was guessed."""
    problem: str = ""
    """Why there is none, or what else stands in the way of looking."""
    refused: bool = False
    """Then no command takes the model, for that problem."""


def inspect_model(spec: str, weights: Path | None = None, input_shape: Shape | None = None) -> Inspection:
    """What is in a model, what it costs, what can be pruned, and what stands in the way of training it.

    Args:
        spec: an .onnx file, or `package.module:factory`.
        weights: as for `open_model`.
        input_shape: (C, H, W) of an image; default what the file says, else what it is seen to run on.

    Raises:
        ModelError: nothing usable is there: no such file, or no valid ONNX model.
    """
    if is_factory(spec):
        said: list[str] = []
        made = open_model(spec, weights, input_shape, said.append)
        return _inspection(made, made, made.ByteSize(), _size_of(made, Path(spec), input_shape), (), tuple(said))
    if weights is not None:
        raise ModelError(f"--weights: {weights} goes with package.module:factory; {spec} holds its own weights.")
    path = Path(spec)
    raw = read_model(path)
    size = _size_of(raw, path, input_shape)
    notes: list[str] = []
    model: onnx.ModelProto | None = None
    obstacles: tuple[str, ...] = ()
    if is_quantised(raw):
        obstacles = (QUANTISED,)
    else:
        try:
            model = load_model(path, notes.append)
        except CompressError as error:
            obstacles = (str(error).removeprefix(f"{path}: ").rstrip("."),)
    return _inspection(raw, model, deployed_bytes(path), size, obstacles, tuple(notes))


def _size_of(model: onnx.ModelProto, path: Path, given: Shape | None) -> _Size:
    """The size that a file is looked at with."""
    own = declared_input(model)
    try:
        facts = look_at(model, given, path=path)
    except ModelError as error:  # not images, or not for onnxruntime
        fixed = tuple(size for size in own[1:] if size)
        problem = str(error).removeprefix(f"{path}: ").rstrip(".")
        if given is not None and len(own) == 4:
            return _Size(given, "", problem, refused=True)
        return _Size(fixed if len(fixed) == len(own) - 1 == 3 else None, "", problem, refused=True)
    if facts.fed is None:
        why = facts.problem.removeprefix(f"{path}: ").rstrip(".")
        if given is not None:
            return _Size(None, "", f"it does not run on such an image: {why}")
        return _Size(None, "", f"it runs on no image of a usual size: {why}. Use --input C,H,W")
    if given is not None and tuple(facts.fed) != given:
        asked, used = (",".join(map(str, shape)) for shape in (given, facts.fed))
        return _Size(facts.fed, f"--input {asked}: the file fixes other sizes; looked at with {used}")
    return _Size(facts.fed, "" if given is not None else size_said(facts))


def _inspection(
    raw: onnx.ModelProto,
    model: onnx.ModelProto | None,
    size_bytes: int,
    size: _Size,
    obstacles: tuple[str, ...],
    notes: tuple[str, ...],
) -> Inspection:
    """Put together what can be found out of a file, and of its canonical form if it has one."""
    module: fx.GraphModule | None = None
    groups: tuple[GroupSummary, ...] = ()
    if model is not None:
        try:
            module = to_torch(model)
        except UnsupportedOpError as error:
            obstacles = error.nodes or (str(error),)
    if module is not None:
        notes = (*notes, *(_kept_said(name, needed) for name, needed in kept_nodes(module).items()))
    shape = _three(size.shape)
    if module is not None and (shape is None or size.refused):
        obstacles = (size.problem,)
    elif module is not None and shape is not None:
        try:
            check_runs(module, shape)
            groups = _groups(module, shape)
        except CompressError as error:
            obstacles = (str(error).rstrip("."),)
    cost, problem = _cost(model or raw, shape, size_bytes, size.problem)
    described = raw if model is None else model
    return Inspection(
        inputs=tuple(_describe(value) for value in real_inputs(described)),
        outputs=tuple(_describe(value) for value in described.graph.output),
        ops=_operators(described),
        cost=cost,
        groups=groups,
        untrained={} if model is None else free_constants(model.graph).fixed,
        size_bytes=size_bytes,
        cost_problem=problem,
        obstacles=obstacles,
        notes=(*notes, *([size.said] if size.said else [])),
    )


def _kept_said(name: str, needed: bool) -> str:
    """What to say of a node that the reference implementation computes."""
    trained = (
        "pruning and int8 with epochs: 0 work, and training is refused" if needed else "no gradient goes through it"
    )
    return f"{name}: has no trainable form, and is computed by ONNX's reference implementation, slowly; {trained}."


def _cost(model: onnx.ModelProto, shape: Shape | None, size_bytes: int, problem: str) -> tuple[Cost | None, str]:
    """Parameters and multiply-adds; or None and why they cannot be counted."""
    if shape is None:
        return None, problem
    try:
        return model_cost(model, shape, size_bytes), ""
    except CompressError as error:
        return None, problem or str(error).rstrip(".")
    except Exception as error:  # a graph of a form that counting does not know
        return None, reason(error)


def _groups(module: nn.Module, shape: Shape) -> tuple[GroupSummary, ...]:
    """What can be pruned, and what not."""
    survey = survey_channels(module, shape)
    positions = layer_positions(module, shape)
    _, total = module_cost(module, shape)
    prunable = [
        GroupSummary(group.name, group.channels, group_macs(module, group, positions) / max(1, total))
        for group in survey.groups
    ]
    protected = [GroupSummary(name, _out_channels(module, name), 0.0, why) for name, why in survey.protected.items()]
    return (*prunable, *protected)


def _three(shape: tuple[int, ...] | None) -> Shape | None:
    return None if shape is None else (shape[0], shape[1], shape[2])


def _operators(model: onnx.ModelProto) -> dict[str, int]:
    """How often each operator occurs, those inside If and Loop included; not Constant, which computes nothing."""
    return dict(collections.Counter(_names(model.graph)).most_common())


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        if node.op_type != "Constant":
            yield node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        for entry in node.attribute:
            for inner in (*([entry.g] if entry.HasField("g") else []), *entry.graphs):
                yield from _names(inner)


def _out_channels(module: nn.Module, name: str) -> int:
    layer = module.get_submodule(name)
    for attribute in ("out_channels", "out_features", "num_features", "hidden_size"):
        if hasattr(layer, attribute):
            return int(getattr(layer, attribute))
    return 0


def _describe(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    kind = type_name(tensor.elem_type)
    kind = {"float": "float32"}.get(kind, kind)
    dims = ", ".join(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
    return f"{value.name} {kind} [{dims}]"
