"""The keys of the step `replace`, which is in no recipe unless requested."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from compress.recipe.values import Names, NotNegativeFloat, Positive, Side, Step, problem, rule


class ReplaceStep(Step):
    """Put a cheaper activation in the place of another, for speed; training compensates for it."""

    name: ClassVar[str] = "replace"
    hardswish: Literal["relu"] = Field(description="what takes the place of hard-swish: `relu`, free in integers")
    layers: Annotated[Names, rule(lambda v: len(v) > 0, "Must name one activation or more. Use e.g. ['*'].")] = Field(
        ("*",), description="activations that may be replaced, by the values they compute; `*` matches any text"
    )
    metric_drop: NotNegativeFloat | None = Field(
        None,
        description="replace only those whose metric drop alone, without training, stays within this, and measure each "
        "first; default all",
    )
    images: Positive | None = Field(
        None, description="with `metric_drop`: score each on this many validation images; default all"
    )
    side: Side | None = Field(
        None,
        description="with `metric_drop`, for detection: score each at this smaller side, which is quicker; default "
        "`task.side`",
    )

    @property
    def swap(self) -> tuple[str, str]:
        """What is replaced, and by what.

        >>> ReplaceStep(hardswish="relu").swap
        ('hardswish', 'relu')
        """
        return "hardswish", self.hardswish

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for name in ("images", "side"):
            if self.metric_drop is None and getattr(self, name) is not None:
                raise problem(f"{name}: needs metric_drop, without which nothing is measured. Remove it, or set that.")
        return self
