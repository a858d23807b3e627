"""Which channels can be replaced by those that stay: a ranking that looks at images, not at weights alone.

A layer that reads a channel can make up for its loss with weights on the other channels, as far as they say the same.
What it cannot make up is known without trying: with the Gram matrix G of the layer's inputs and weights W, removing the
rows R leaves at least

    e(R) = tr( W_R' [(G^-1)_RR]^-1 W_R )

of its output's square wrong, over all images that G was summed over. Channels are taken out one by one, each time the
one of which the layers that read it lose least, all of them together; after each, G^-1 and W are brought up to date.

`fpgm`, `l1` and `l2` see how alike or how small the filters are that make a channel; this sees what the layers behind
make of it. It needs images, without labels, and an inverse for each layer.

Source: Optimal Brain Surgeon (Hassibi and Stork 1993) for layers, each a least-squares problem of its own (Frantar and
Alistarh 2022, arXiv 2208.11580), of whole structures (Kurtic, Frantar and Alistarh 2023, "ZipLM", arXiv 2302.04089).
Measured against `fpgm`: docs/sensitivity.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.progress import Progress
from compress.prune.channel_scores import score_group
from compress.prune.channels import ChannelGroup, channel_blocks
from compress.prune.compensation import Equations
from compress.prune.importance import fpgm
from compress.prune.least_squares import Normal, Regression
from compress.prune.reconstruct import RIDGE


def obs_scores(
    module: nn.Module,
    groups: Sequence[ChannelGroup],
    equations: Equations,
    *,
    ridge: float = RIDGE,
    on_progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Score the channels of each group, [channels] in float64; the lowest are removed first.

    A channel's score is what has become wrong once it and all before it are gone: of each layer that reads the group
    the squared error over its output's variance, summed over the layers. So scores rise in the order of removal. The
    units of a recurrent layer are read by the layer itself, too.

    Where channels are read by no layer (the queries of attention), or by one that `equations` does not have (too wide,
    or with values that overflow), their block is scored by `fpgm`: the group, or one of the parts that lose as many.

    Args:
        module: the network.
        groups: from `find_groups`.
        equations: of the layers that read the groups' channels, from `reader_equations`.
        ridge: how firmly weights are held where they are, as in reconstruction.
        on_progress: called as (groups done, in all, message).
    """
    usable = {name: found for name, found in equations.items() if found and all(map(_is_finite, found))}
    scores = {}
    for number, group in enumerate(groups):
        readers = _readers(module, group, usable, ridge)
        known = _known(group, usable, readers)
        found = _eliminate(group.channels, readers) if known else torch.zeros(group.channels, dtype=torch.float64)
        for block in channel_blocks(group):  # of each as many go: scales of blocks need not agree
            if not known.issuperset(block):
                found[list(block)] = score_group(module, group, fpgm)[list(block)]
        scores[group.name] = found
        if on_progress is not None:
            on_progress(number + 1, len(groups), f"ranking the channels of {group.name}")
    return scores


def _is_finite(equation: tuple[Regression, Normal]) -> bool:
    """Whether activations were: sums of one image that overflows say nothing."""
    normal = equation[1]
    return all(bool(torch.isfinite(part).all()) for part in (normal.gram, normal.cross, normal.squares))


def _known(group: ChannelGroup, equations: Equations, readers: Sequence["_Reader"]) -> set[int]:
    """The channels whose loss can be told: some layer reads them, and of all that do there are equations."""
    known = {channel for channel in range(group.channels) if any(reader.rows[channel] for reader in readers)}
    for member in group.members:
        if member.side == "in" and member.layer not in equations:
            known -= {channel for channel, indices in enumerate(member.indices) if indices}
    return known


def stored_scores(scores: Mapping[str, Tensor]) -> dict[str, tuple[float, ...]]:
    """Scores as a scan's file has them."""
    return {name: tuple(values.tolist()) for name, values in scores.items()}


@dataclass
class _Reader:
    """One least-squares problem whose inputs are channels of a group; its matrices change as channels go."""

    inverse: Tensor
    """Of the Gram matrix with the ridge, [F, F]."""
    weights: Tensor
    """[F, O]."""
    rows: list[list[int]]
    """Group channel -> its inputs; empty where the layer does not read it."""
    variance: float
    """Of the output, summed over rows and outputs."""

    def errors(self, channels: Sequence[int]) -> Tensor:
        """What removing each of these channels alone would add, [channels]."""
        found = torch.zeros(len(channels), dtype=torch.float64)
        by_count: dict[int, list[int]] = {}
        for place, channel in enumerate(channels):
            by_count.setdefault(len(self.rows[channel]), []).append(place)
        by_count.pop(0, None)
        for places in by_count.values():
            rows = torch.tensor([self.rows[channels[place]] for place in places])
            blocks, weights = self.inverse[rows[:, :, None], rows[:, None, :]], self.weights[rows]
            found[places] = (weights * torch.linalg.solve(blocks, weights)).sum((1, 2))
        return found / self.variance

    def remove(self, channel: int) -> None:
        """Give the other inputs the weights that make up best; this channel's are zero from now on."""
        if not self.rows[channel]:
            return
        rows = torch.tensor(self.rows[channel])
        columns = self.inverse[:, rows].clone()
        block = columns[rows]
        self.weights -= columns @ torch.linalg.solve(block, self.weights[rows])
        self.inverse -= columns @ torch.linalg.solve(block, columns.T)
        self.weights[rows] = 0.0
        self.inverse[rows] = 0.0
        self.inverse[:, rows] = 0.0
        self.inverse[rows, rows] = 1.0


def _eliminate(channels: int, readers: Sequence[_Reader]) -> Tensor:
    """The error at which each channel goes, when the cheapest goes first."""
    scores, total = torch.zeros(channels, dtype=torch.float64), 0.0
    left = list(range(channels))
    while left:
        errors = torch.stack([reader.errors(left) for reader in readers]).sum(dim=0)
        place = int(errors.argmin())
        total += max(0.0, float(errors[place]))
        channel = left.pop(place)
        scores[channel] = total
        for reader in readers:
            reader.remove(channel)
    return scores


def _readers(module: nn.Module, group: ChannelGroup, equations: Equations, ridge: float) -> list[_Reader]:
    """The problems of every layer that reads the group; of a convolution in groups each one's own."""
    reads: dict[str, dict[int, list[int]]] = {}
    for member in group.members:
        if member.side == "in":
            channels = reads.setdefault(member.layer, {})
            for channel, indices in enumerate(member.indices):
                channels.setdefault(channel, []).extend(indices)
    found = []
    for layer, channels in reads.items():
        for regression, normal in equations.get(layer, ()):
            for problem in range(len(normal.gram)):
                rows = [
                    [row for index in channels[channel] for row in regression.reading(index, problem)]
                    for channel in sorted(channels)
                ]
                if any(rows):
                    found.append(_reader(regression, normal, problem, rows, ridge))
    if isinstance(module.get_submodule(group.layer), nn.RNNBase):
        for regression, normal in equations.get(group.layer, ()):
            rows = [regression.remembering(unit) for unit in range(group.channels)]
            if any(rows):
                found.append(_reader(regression, normal, 0, rows, ridge))
    return [reader for reader in found if reader is not None]


def _reader(
    regression: Regression, normal: Normal, problem: int, rows: list[list[int]], ridge: float
) -> _Reader | None:
    """A problem with its inverse; None where its inputs or outputs are always zero, and nothing can be lost."""
    gram, squares = normal.gram[problem].cpu(), normal.squares[problem].cpu()
    diagonal = gram.diagonal()
    mean = (diagonal[:-1] if regression.has_bias else diagonal).mean()
    power = squares.sum()
    if float(mean) <= 1e-12 or float(power) == 0.0:
        return None
    penalty = torch.full_like(diagonal, float(mean) * ridge)
    variance = power
    if regression.has_bias:
        penalty[-1] *= 1e-6
        variance = variance - (normal.cross[problem, -1].cpu().square() / gram[-1, -1]).sum()
    weights = regression.start()[problem].detach().cpu().double()
    inverse = torch.linalg.inv(gram + torch.diag(penalty))
    # Inputs that hardly change are held by the ridge more than by images: what it holds bounds the error, too.
    held = mean * ridge * weights.square().sum()
    return _Reader(inverse, weights, rows, float(torch.maximum(variance, torch.maximum(1e-6 * power, held))))
