"""Normalisation over several channels: what removing some of them means.

- GroupNorm takes a mean and a variance of each of its groups, so whole groups go, and the others compute what they did.
  InstanceNorm is the case of one channel in each group: like BatchNorm, it knows no other channel.
- LayerNorm over channels takes them of all channels. Without some of them they are others, and no weights make up for
  that, as they differ from image to image. So here removing is defined otherwise than elsewhere, in the usual way: mean
  and variance are those of the channels that are left. What that costs is part of a sensitivity scan's figures, which
  are measured on networks that are really pruned.

Source: LLM-Pruner (Ma et al. 2023, arXiv 2305.11627) and torch-pruning slice LayerNorm's weights, too.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

OPTION = "whose mean and variance would change: --layer-norms lets them go"
"""Said of channels that stay where the option is off."""


def norm_notes(module: nn.Module, groups: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """What to say of groups of channels that go through LayerNorms of a module.

    Args:
        module: the network.
        groups: name -> layers that make or carry the channels.

    >>> norm_notes(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), {"0": ("0", "1")})
    ('0: its channels go through 1 LayerNorm (1), whose mean and variance are then of the channels that are left',)
    """
    known = dict(module.named_modules())
    through = {
        name: [layer for layer in layers if isinstance(known.get(layer), nn.LayerNorm)]
        for name, layers in groups.items()
    }
    return tuple(
        f"{name}: its channels go through {len(norms)} LayerNorm{'s' if len(norms) > 1 else ''} "
        f"({', '.join(norms[:3])}{', ...' if len(norms) > 3 else ''}), whose mean and variance are then of the "
        "channels that are left"
        for name, norms in through.items()
        if norms
    )


def shrink_norm(norm: nn.GroupNorm | nn.LayerNorm, removed: int) -> None:
    """Let a normalisation whose weights lost channels count those that are left, in place; of a GroupNorm whole groups.

    >>> norm = nn.GroupNorm(4, 12)
    >>> shrink_norm(norm, 6)
    >>> norm.num_groups, norm.num_channels
    (2, 6)
    """
    if isinstance(norm, nn.LayerNorm):
        norm.normalized_shape = (norm.normalized_shape[0] - removed,)
        return
    norm.num_groups -= removed // (norm.num_channels // norm.num_groups)
    norm.num_channels -= removed


class NormOfKept(nn.Module):
    """A LayerNorm over channels [..., C] whose mean and variance leave out some of them.

    What LayerNorm computes with those channels removed, spelled without changing any shape.
    """

    def __init__(self, norm: nn.LayerNorm, removed: Sequence[int]) -> None:
        super().__init__()
        self.norm = norm
        self.register_buffer("kept", torch.ones(norm.normalized_shape[0], device=norm.weight.device))
        self.kept[list(removed)] = 0.0

    kept: Tensor
    """1 for a channel that is left, 0 for one that is removed, [C]."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., C] -> [..., C]."""
        count = self.kept.sum()
        centred = x - (x * self.kept).sum(-1, keepdim=True) / count
        variance = (centred.square() * self.kept).sum(-1, keepdim=True) / count
        scaled = centred * torch.rsqrt(variance + self.norm.eps) * self.norm.weight
        return scaled if self.norm.bias is None else scaled + self.norm.bias
