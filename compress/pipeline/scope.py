"""Which channels of a network a scan measures and a plan removes."""

from dataclasses import dataclass
from typing import Self

from torch import fx

from compress.pipeline.models import expand_names
from compress.prune.channels import ChannelGroup
from compress.prune.groups import find_groups
from compress.recipe import PruneStep


@dataclass(frozen=True)
class Scope:
    """Which channels of a network may be pruned."""

    protect: tuple[str, ...] = ()
    """Layers never to prune; `*` matches any text."""
    recurrent: bool = True
    """Hidden units of LSTM and GRU layers as well."""
    layer_norms: bool = False
    """Channels that LayerNorms normalise as well."""

    @classmethod
    def of(cls, step: PruneStep) -> Self:
        """As a recipe's step says."""
        return cls(step.protect, step.recurrent, step.layer_norms)

    def groups(self, module: fx.GraphModule, input_shape: tuple[int, int, int]) -> list[ChannelGroup]:
        """The groups of coupled channels that may be pruned, in the order they run.

        Raises:
            CompressError: no layer has a protected name.
        """
        protected = expand_names(module, self.protect, "protect")
        return find_groups(module, input_shape, protected, self.recurrent, layer_norms=self.layer_norms)


EVERYTHING = Scope()
"""Every channel that pruning leaves an exact network without."""
