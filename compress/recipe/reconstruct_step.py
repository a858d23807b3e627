"""The keys of the step `reconstruct`."""

from typing import ClassVar

from pydantic import Field

from compress.recipe.values import Positive, PositiveFloat, Step


class ReconstructStep(Step):
    """Solve the pruned network's weights anew, layer by layer, from images without labels; nothing is trained."""

    name: ClassVar[str] = "reconstruct"
    images: Positive = Field(256, description="training images to use; labels are not looked at")
    positions: Positive = Field(400, description="places of each image that count in a layer, drawn at random")
    ridge: PositiveFloat = Field(
        1e-3, description="how firmly weights are held where they were, over their inputs' mean square"
    )
