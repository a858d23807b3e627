"""Feature distillation: a pruned network learns what its teacher's layers compute, not its outputs alone.

Outputs say little: two classes, or a map that is mostly zero. What the layers inside compute says much more, and needs
no label. A pruned network's layers have their teacher's channels, less those that are gone, so that they are compared
as they are, without the adapter layers that networks of other shapes need.

Source: FitNets (Romero et al. 2015); here for every layer that narrows, with the channels that pruning left.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from compress.compute.device import device_of
from compress.errors import TrainingError
from compress.graph.queries import norm_behind, output_count

SAME = 1e-4
"""A layer's variance over its mean square, at or below which its outputs are all alike."""
DEAD = 1e-6
"""Its variance over that of the layer with the most, at or below which it is dead."""


class Pass(Protocol):
    """A forward pass that was watched."""

    def loss(self, images: Tensor) -> Tensor:
        """A scalar with a gradient; `images` are those of the pass."""


class Watching(Protocol):
    """A loss on what layers inside a network compute: of one student, or of a pair (see `compress.train.mutual`)."""

    def watch(self, student: nn.Module, /) -> AbstractContextManager[Pass]:
        """Note what its layers compute inside of the block."""


class FeatureLoss:
    """Mean relative squared distance of a student's features from its teacher's."""

    def __init__(
        self, teacher: fx.GraphModule, weight: float = 1.0, kept: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """
        Args:
            teacher: the network as it was before pruning, or the same trained on; evaluated, never trained.
            weight: of this loss beside others.
            kept: layer -> the teacher's output channels that the student has; all of a layer that is not named.
        """
        self.weight = weight
        self.teacher = teacher.eval().requires_grad_(False)
        device = device_of(teacher)
        self.layers = {
            place: torch.tensor(kept[layer], device=device) if kept and layer in kept else None
            for layer, place in feature_layers(teacher).items()
        }

    def check(self, student: nn.Module) -> None:
        """Raise TrainingError where the student lacks a layer, or has other channels than are compared."""
        layers = dict(student.named_modules())
        for name, kept in self.layers.items():
            wanted = output_count(self.teacher.get_submodule(name)) if kept is None else len(kept)
            found = output_count(layers[name]) if name in layers else 0
            if found != wanted:
                raise TrainingError(
                    f"features: layer {name!r} has {found} channels, and {wanted} of the teacher's would be compared "
                    "with it. Give the plan that the model was pruned by, and the model it was made of as the teacher."
                )

    @contextmanager
    def watch(self, student: nn.Module) -> Iterator["Watched"]:
        """Note what the student's layers compute inside of the block; `Watched.loss` compares it."""
        seen: dict[str, Tensor] = {}
        with _noted(student, self.layers, seen):
            yield Watched(self, seen)

    def wanted(self, images: Tensor) -> dict[str, Tensor]:
        """The teacher's features, of the channels that the student has."""
        seen: dict[str, Tensor] = {}
        with torch.no_grad(), _noted(self.teacher, self.layers, seen):
            self.teacher(images)
        return {name: self._select(name, seen[name]) for name in self.layers}

    def _select(self, name: str, feature: Tensor) -> Tensor:
        """The channels that the student has: dimension 1 of a convolution's map, the last of rows and sequences."""
        kept = self.layers[name]
        if kept is None:
            return feature
        last = isinstance(self.teacher.get_submodule(name), nn.Linear | nn.RNNBase)
        return feature.index_select(-1 if last else 1, kept)


class Watched:
    """One forward pass of the student."""

    def __init__(self, features: FeatureLoss, seen: Mapping[str, Tensor]) -> None:
        self._features = features
        self._seen = seen

    def loss(self, images: Tensor, wanted: Mapping[str, Tensor] | None = None) -> Tensor:
        """`weight` times the mean over layers of |student - teacher|^2 / |teacher - its mean|^2, on the images of the
        pass. A layer whose outputs are all alike is left out: it has nothing to teach, and no scale.

        `wanted`: the teacher's features of these images, where they are known already.
        """
        wanted = self._features.wanted(images) if wanted is None else wanted
        spreads = {name: float(target.var()) for name, target in wanted.items()}
        least = DEAD * max(spreads.values(), default=0.0)
        terms = [
            (self._seen[name] - target).square().mean() / spreads[name]
            for name, target in wanted.items()
            if spreads[name] > max(least, SAME * float(target.square().mean()))
        ]
        return self._features.weight * torch.stack(terms).mean() if terms else images.new_zeros(())


def feature_layers(module: fx.GraphModule) -> dict[str, str]:
    """Layer with weights -> the module whose output is its feature: itself, or the BatchNorm that alone reads it.

    Chosen are layers that make no more channels than they read, in networks of bottlenecks the blocks' outputs, in
    others most layers; not convolutions in groups. The last layer is among them where it narrows: its logits before the
    softmax or sigmoid.
    """
    found: dict[str, str] = {}
    for node in module.graph.nodes:
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if layer is None or not _narrows(layer):
            continue
        found[str(node.target)] = norm_behind(module, str(node.target)) or str(node.target)
    return found


def _narrows(layer: nn.Module) -> bool:
    if isinstance(layer, _ConvNd):
        return layer.groups == 1 and layer.out_channels <= layer.in_channels
    if isinstance(layer, nn.RNNBase):
        return True
    return isinstance(layer, nn.Linear) and layer.out_features <= layer.in_features


@contextmanager
def _noted(module: nn.Module, names: Mapping[str, Any], seen: dict[str, Tensor]) -> Iterator[None]:
    """Keep the outputs of some of a module's layers while the block runs."""

    def note(name: str) -> Any:
        def hook(_: nn.Module, given: Any, made: Any) -> None:
            seen[name] = made[0] if isinstance(made, tuple) else made

        return hook

    handles = [module.get_submodule(name).register_forward_hook(note(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
