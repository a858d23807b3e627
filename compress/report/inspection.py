"""What `inspect` finds in a model."""

from dataclasses import dataclass, field

from compress.artifacts import Cost


@dataclass(frozen=True)
class GroupSummary:
    """Channels that can only be removed together. `protected`: why they stay, or ''."""

    name: str
    channels: int
    macs_share: float
    """Share of the model's MACs in the layers whose channels these are, in [0, 1]."""
    protected: str = ""


@dataclass(frozen=True)
class Inspection:
    """A model's interface, operators, cost, and channel groups. `inputs`: e.g. "x float32 [N, 3, 48, 192]"."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: dict[str, int]
    """Operator -> how many."""
    cost: Cost | None
    """None where it cannot be counted, for the reason in `cost_problem`."""
    groups: tuple[GroupSummary, ...]
    untrained: dict[str, str] = field(default_factory=dict)
    """Constants of the arithmetic between layers that training leaves as they are -> why."""
    size_bytes: int = 0
    """Of the file, with its external weights."""
    cost_problem: str = ""
    obstacles: tuple[str, ...] = ()
    """What stands in the way of training it, one each; empty where nothing does."""
    notes: tuple[str, ...] = ()
    """What was guessed, and what was changed so that it can be trained."""
