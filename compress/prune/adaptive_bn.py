"""BatchNorm's statistics anew, as a pruned network's layers see other inputs than they were measured on."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.errors import PlanError


def check_has_batch_norm(module: nn.Module) -> None:
    """
    Raises:
        PlanError: there is none to adapt.
    """
    if not any(isinstance(layer, _BatchNorm) for layer in module.modules()):
        raise PlanError(
            "prune.search.recover: got adaptive_bn, but the model has no BatchNorm: it never had, or it is folded into "
            "the convolutions. Use reconstruct, or none."
        )


def adapt_batch_norm(module: nn.Module, batches: Iterable[np.ndarray]) -> None:
    """Give each BatchNorm the mean and variance that its input has over images [N, C, H, W], averaged over batches.

    Weights stay as they are. Layers adapt together, each to what the one before gave in the same batch. Batches of less
    than half of the largest one's images are left out: they would count as much as the others.

    Raises:
        PlanError: the module has no BatchNorm, or no batch has two images.

    Source: EagleEye (Li et al. 2020, arXiv 2007.02491), "adaptive batch normalization".
    """
    check_has_batch_norm(module)
    given = list(batches)
    least = max(2, max(map(len, given), default=0) // 2)
    used = [batch for batch in given if len(batch) >= least]
    if not used:
        raise PlanError("prune.search.recover: adaptive_bn needs two images of one size. Give more of them: images.")
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average over batches
            norm.train()
        with torch.no_grad():
            for batch in used:
                module(torch.from_numpy(np.ascontiguousarray(batch)))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
