"""The keys of `prune.search`."""

from typing import Literal

from pydantic import Field

from compress.recipe.values import Positive, Settings


class SearchSettings(Settings):
    """Several plans at the same target, tried: each is pruned, recovered cheaply and scored, and the best is kept."""

    candidates: Positive = Field(16, description="plans to try, the scan's own among them")
    recover: Literal["none", "reconstruct", "adaptive_bn"] = Field(
        "reconstruct",
        description="what each goes through before it is scored: `reconstruct`, as that step does; `adaptive_bn`: "
        "BatchNorm's statistics anew, for models that still have it; or `none`",
    )
    images: Positive = Field(
        64,
        description="training images to recover on, whose labels are not looked at; also to score on, where "
        "`sensitivity.measure` is not `metric`",
    )
