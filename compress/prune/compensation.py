"""What a group of channels is worth once the layers that read it have made the best of the rest.

A layer that loses inputs can put weights on those that are left: often they say nearly the same. The least-squares
weights need no data for each choice of channels: with the Gram matrix G of all of a layer's inputs, those of a subset S
are (G_SS + lambda)^-1 of the same rows of X'Y. So the network runs once over a few images, and every cell of a scan is
compensated by solving a small system. Without this a scan measures the shock of pruning, which reconstruction or
training takes away; with it, what stays.

Source: channel pruning by least squares (He, Zhang and Sun 2017), of one layer at a time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from compress.graph.queries import norm_behind, output_count
from compress.progress import Progress
from compress.prune.channels import ChannelGroup
from compress.prune.least_squares import Normal, Regression
from compress.prune.reconstruct import POSITIONS, RIDGE, layer_equations
from compress.prune.regression import regressions

Equations = Mapping[str, Sequence[tuple[Regression, Normal]]]
"""Layer -> its regressions with their sums over images."""
WIDEST = 2400
"""Inputs of a layer above which it is not compensated: every cell of a scan that it reads would take seconds more. The
Gram matrices of all readers are kept, of 46 MB each at most."""


def reader_equations(
    module: fx.GraphModule,
    groups: Sequence[ChannelGroup],
    batches: Iterable[np.ndarray],
    *,
    positions: int = POSITIONS,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Equations:
    """Run the network over images [N, C, H, W] and sum up the equations of every layer that reads a group.

    Args:
        module: the whole network.
        groups: from `find_groups`.
        batches: images; kept in memory, with the activations that later layers read.
        positions: rows drawn from each image, at most.
        seed: of what is drawn.
        on_progress: called as (layers done, in all, message).
    """
    wanted = {member.layer for group in groups for member in group.members if member.side == "in"}
    wanted |= {group.layer for group in groups if isinstance(module.get_submodule(group.layer), nn.RNNBase)}
    return layer_equations(module, wanted, batches, positions, seed, WIDEST, on_progress)


@dataclass(frozen=True)
class _Reader:
    """A layer that reads some group's channels: its regressions in the whole network, with their sums over images."""

    layer: nn.Module
    equations: Sequence[tuple[Regression, Normal]]


class Compensation:
    """Solves the readers of pruned channels anew, from sums over images that were run through the network once."""

    def __init__(self, module: fx.GraphModule, equations: Equations, *, ridge: float = RIDGE) -> None:
        """Solve from sums over images.

        Args:
            module: the whole network.
            equations: from `reader_equations`.
            ridge: how firmly weights are held where they were.
        """
        self._ridge = ridge
        layers = {name: module.get_submodule(name) for name in equations}
        # A convolution in groups is several problems, which lose inputs of their own.
        self._readers = {
            name: _Reader(layers[name], made)
            for name, made in equations.items()
            if getattr(layers[name], "groups", 1) == 1
        }

    def __call__(self, pruned: nn.Module, group: ChannelGroup, removed: Sequence[int]) -> None:
        """Give the layers that read a group the weights that make up best for the channels that were removed.

        Args:
            pruned: the network without these channels of this group, and of no other; changed.
            group: what was pruned.
            removed: channels of it.
        """
        lost: dict[tuple[str, str], set[int]] = {}
        for member in group.members:
            indices = {index for channel in removed for index in member.indices[channel]}
            lost.setdefault((member.layer, member.side), set()).update(indices)
        with torch.no_grad():
            for name, reader in self._readers.items():
                inputs, outputs = (lost.get((name, side), set()) for side in ("in", "out"))
                if inputs or (outputs and isinstance(reader.layer, nn.RNNBase)):  # whose units read each other
                    self._solve(pruned, name, inputs, outputs)

    def _solve(self, pruned: nn.Module, name: str, inputs: set[int], outputs: set[int]) -> None:
        reader = self._readers[name]
        layer = pruned.get_submodule(name)
        kept = [channel for channel in range(output_count(reader.layer)) if channel not in outputs]
        norm = norm_behind(pruned, name) if isinstance(pruned, fx.GraphModule) else None
        targets = regressions(layer, reader.layer, kept, pruned.get_submodule(norm) if norm else None)
        for target, (source, normal) in zip(targets, reader.equations, strict=True):
            rows, columns = _left(source, inputs, outputs)
            part = Normal(
                normal.gram[:, rows][:, :, rows], normal.cross[:, rows][:, :, columns], normal.squares[:, columns]
            )
            weights = part.solve(source.start()[:, rows][:, :, columns], self._ridge, has_bias=source.has_bias)
            if bool(torch.isfinite(weights).all()):
                target.assign(weights.to(target.start().dtype))


def _left(source: Regression, inputs: set[int], lost: set[int]) -> tuple[Tensor, Tensor]:
    """What is left of a regression's inputs and outputs when its layer loses some input channels, and some outputs."""
    _, rows, columns = source.start().shape
    unread = {row for channel in inputs for row in source.reading(channel)}
    unread |= {row for unit in lost for row in source.remembering(unit)}
    unmade = {column for channel in lost for column in source.making(channel)}
    return (
        torch.tensor([row for row in range(rows) if row not in unread]),
        torch.tensor([column for column in range(columns) if column not in unmade]),
    )
