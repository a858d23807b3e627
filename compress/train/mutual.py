"""Mutual learning: two students of one architecture learn from each other, beside labels and teacher; the better stays.

Both are one module to the training loop (`Pair`), so that one optimiser, one checkpoint and one average hold them. Each
student minimises what it would alone, and its distance from the other's outputs, which are constants to it.

Source: Zhang et al. 2018, "Deep Mutual Learning" (arXiv 1706.00384); PP-OCRv2's U-DML (recognition) and CML (detection,
with a frozen teacher beside the students; arXiv 2109.03144) are built on it. There the students start from different
random weights. Here both start from the pruned network, whose weights are worth keeping, and the second is perturbed.
U-DML also compares the students' features; ours are compared with the teacher's, where that is on (`FeatureLoss`).
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.train.features import FeatureLoss, Watched
from compress.train.settings import Distance, Objective

NOISE = 0.05
"""Standard deviation of the noise on the second student's weights, over their filter's root mean square."""


class Pair(nn.Module):
    """Two students: the module itself, and a perturbed copy of it.

    Which one scored better is a buffer, so that it is kept and restored with the weights it is true of.
    """

    second_is_better: Tensor

    def __init__(self, module: nn.Module, image: Tensor, seed: int) -> None:
        """
        Args:
            module: the first student; not copied.
            image: any one that it computes, [1, 3, H, W], on its device.
            seed: of the second one's perturbation.
        """
        super().__init__()
        self.first = module
        self.second = copy.deepcopy(module)
        perturb(self.second, image, seed)
        self.register_buffer("second_is_better", torch.tensor(False, device=image.device))

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] -> the first output of both students, [2, N, ...]."""
        return torch.stack([_first_output(student, images) for student in (self.first, self.second)])

    def better(self) -> nn.Module:
        """The student that scored better when last scored; the first of equal ones."""
        return self.second if self.second_is_better else self.first


def pair_objective(single: Objective, mutual_loss: Distance, weight: float) -> Objective:
    """The objective of a `Pair`, of that of one student.

    Losses are sums over both students, so that each has the gradients that it would have alone, and those of
    `weight` times its distance from the other's outputs. The pair scores as its better student does.

    Args:
        single: what each student would learn alone.
        mutual_loss: distance of a student's outputs from the other's.
        weight: of that distance.
    """

    def loss(outputs: Tensor, batch: Any) -> Tensor:
        one, other = outputs
        apart = mutual_loss(one, other.detach()) + mutual_loss(other, one.detach())
        return single.loss(one, batch) + single.loss(other, batch) + weight * apart

    near = single.distillation_loss

    def distillation_loss(outputs: Tensor, wanted: Tensor) -> Tensor:
        assert near is not None
        one, other = outputs
        return near(one, wanted) + near(other, wanted)

    def evaluate(pair: nn.Module) -> float:
        assert isinstance(pair, Pair)
        one, other = single.evaluate(pair.first), single.evaluate(pair.second)
        pair.second_is_better.fill_(other > one)
        return max(one, other)

    features = PairFeatures(single.features) if isinstance(single.features, FeatureLoss) else None
    return replace(
        single, loss=loss, distillation_loss=distillation_loss if near else None, evaluate=evaluate, features=features
    )


class PairFeatures:
    """`FeatureLoss` of both students; the teacher runs once."""

    def __init__(self, features: FeatureLoss) -> None:
        self._features = features

    @contextmanager
    def watch(self, pair: nn.Module) -> Iterator["WatchedPair"]:
        """Note what both students' layers compute inside of the block."""
        assert isinstance(pair, Pair)
        with self._features.watch(pair.first) as one, self._features.watch(pair.second) as other:
            yield WatchedPair(self._features, (one, other))


class WatchedPair:
    """One forward pass of both students."""

    def __init__(self, features: FeatureLoss, students: tuple[Watched, Watched]) -> None:
        self._features = features
        self._students = students

    def loss(self, images: Tensor) -> Tensor:
        """Sum of both students' losses on features, on the images of the pass."""
        wanted = self._features.wanted(images)
        one, other = (student.loss(images, wanted) for student in self._students)
        return one + other


def perturb(module: nn.Module, image: Tensor, seed: int, noise: float = NOISE) -> None:
    """Add Gaussian noise to the weights of all layers, in proportion to each filter's root mean square.

    Biases and normalisation stay: the former are mostly zero, and statistics that were measured should hold. So does
    what the first output does not depend on: it is not trained.

    Args:
        module: changed in place, and left in evaluation mode.
        image: any one that it computes, [1, 3, H, W].
        seed: the same one gives the same noise.
        noise: standard deviation over the filter's root mean square.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        used = _parameters_of(_first_output(module.eval(), image))
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() < 2 or id(weight) not in used:
                continue
            size = weight.flatten(1).square().mean(dim=1).sqrt().reshape(-1, *[1] * (weight.dim() - 1))
            drawn = torch.randn(weight.shape, generator=generator, dtype=weight.dtype).to(weight.device)
            weight.add_(noise * size * drawn)


def _parameters_of(output: Tensor) -> set[int]:
    """Identities (`id`) of the parameters that a tensor was computed from."""
    nodes: list[Any] = [output.grad_fn]
    seen: set[Any] = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
    return {id(node.variable) for node in seen if hasattr(node, "variable")}


def _first_output(module: nn.Module, images: Tensor) -> Tensor:
    made: Tensor | tuple[Tensor, ...] = module(images)
    return made[0] if isinstance(made, tuple) else made
