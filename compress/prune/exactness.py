"""Check that removing channels means what it should: the network computes what it computes with them silenced."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compress.graph import run_quietly
from compress.prune.channel_scores import lowest_channels
from compress.prune.channels import ChannelGroup, remove_channels, silence_channels

_TOLERANCE = 1e-3
"""Of the largest value: float32 sums in another order differ by about 1e-6, a wrong channel by about 1."""


def exact_groups(
    module: nn.Module,
    input_shape: tuple[int, int, int],
    groups: list[ChannelGroup],
    known: Sequence[ChannelGroup] = (),
) -> list[ChannelGroup]:
    """The groups whose removal is exact: all are tried together, and where that fails half of them each, and so on.

    A group is exact if removing half of its channels gives what silencing them gives, in every layer, and so does the
    other half: a single channel may be coupled wrongly (one that is sliced off and meets all others). That fails where
    channels were coupled wrongly (a shuffle), or where something between layers looks at all of them (a softmax). Where
    LayerNorms may change, their silent form takes mean and variance of the channels that are left, too: of them it is
    only proven that the right channels are left out (see `compress.prune.norms`).

    Args:
        module: the network.
        input_shape: (C, H, W).
        groups: to be tried.
        known: those of them that were found to be exact before.
    """
    new = [group for group in groups if group not in known]
    if any(group.sizes for group in new):  # sizes of one group may depend on another's: each is tried alone, too
        new = [group for group in new if _is_exact(module, input_shape, [group], share=0.0)]
    old = [group for group in groups if group in known]
    if not (old and new and _is_exact(module, input_shape, [*old, *new])):
        new = _exact_among(module, input_shape, new)
    return [group for group in groups if group in known or group in new]


def _exact_among(
    module: nn.Module, input_shape: tuple[int, int, int], groups: list[ChannelGroup]
) -> list[ChannelGroup]:
    """All of them if they are exact together, else those of each half: few wrong ones are found in few tries."""
    if not groups or _is_exact(module, input_shape, groups):
        return groups
    if len(groups) == 1:
        return []
    middle = len(groups) // 2
    return [
        *_exact_among(module, input_shape, groups[:middle]),
        *_exact_among(module, input_shape, groups[middle:]),
    ]


def _is_exact(
    module: nn.Module, input_shape: tuple[int, int, int], groups: list[ChannelGroup], share: float = 0.5
) -> bool:
    """Compare every layer's output, because a network's own output may be saturated on noise.

    Removed is a share of each group's channels, at random, and then the others, or as many of them.
    """
    generator = torch.Generator().manual_seed(0)
    scores = {group.name: torch.rand(group.channels, generator=generator) for group in groups}
    image = torch.randn(1, *input_shape, generator=generator).to(next((p.device for p in module.parameters()), "cpu"))
    for rest in (False, True):
        removed = {group.name: _tried(group, scores[group.name], share, rest) for group in groups}
        if not _computes_the_same(module, groups, removed, image):
            return False
    return True


def _tried(group: ChannelGroup, scores: Tensor, share: float, rest: bool) -> tuple[int, ...]:
    """A share of a group's channels, at least one of each block; or the rest of them, of a half."""
    size = group.channels // group.blocks
    count = int(size * share) or int(share == 0.0)
    if not rest:
        return lowest_channels(group, scores, count * group.blocks)
    others = min(size - count, size - 1) if share == 0.5 else count
    return lowest_channels(group, -scores, others * group.blocks)


def _computes_the_same(
    module: nn.Module, groups: list[ChannelGroup], removed: Mapping[str, Sequence[int]], image: Tensor
) -> bool:
    """Whether every layer computes without the channels what it computes with them silenced."""
    try:
        pruned = _layer_outputs(remove_channels(module, groups, removed), image)
        silent = _layer_outputs(silence_channels(module, groups, removed), image)
    except Exception:  # shapes or indices that do not fit fail in any way, and what cannot be removed is not exact
        return False
    gone = _removed_outputs(groups, removed)
    return pruned.keys() == silent.keys() and all(
        _same(pruned[name], _drop(silent[name], gone.get(name, ()), pruned[name])) for name in pruned
    )


def _removed_outputs(groups: Sequence[ChannelGroup], removed: Mapping[str, Sequence[int]]) -> dict[str, set[int]]:
    gone: dict[str, set[int]] = {}
    for group in groups:
        for member in group.members:
            if member.side == "out":
                indices = (index for channel in removed[group.name] for index in member.indices[channel])
                gone.setdefault(member.layer, set()).update(indices)
    return gone


def _layer_outputs(module: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What each weighted layer computes, channels last, and the module's own outputs."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, channels_first: bool) -> Any:
        def hook(_: nn.Module, inputs: object, output: Any) -> None:
            tensor = output if isinstance(output, Tensor) else output[0]
            outputs[name] = tensor.movedim(1, -1) if channels_first else tensor

        return hook

    for name, layer in module.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear | nn.RNNBase):
            layer.register_forward_hook(keep(name, isinstance(layer, _ConvNd)))
    module.eval()
    with torch.no_grad():
        result = run_quietly(module, image)
    for place, tensor in enumerate(result if isinstance(result, tuple | list) else (result,)):
        outputs[f"output {place}"] = tensor
    return outputs


def _drop(tensor: Tensor, gone: Collection[int], like: Tensor) -> Tensor:
    kept = [index for index in range(tensor.shape[-1]) if index not in gone] if gone else None
    return tensor if kept is None else tensor[..., kept]


def _same(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    scale = float(second.abs().max()) if second.numel() else 0.0
    return math.isfinite(scale) and bool(torch.allclose(first, second, rtol=0.0, atol=_TOLERANCE * scale + 1e-7))
