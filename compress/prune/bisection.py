"""Turn one number until a plan is as small as wanted, then prune no more than it takes."""

from collections.abc import Callable, Mapping, Sequence

from compress.prune.allocation import Choice

_STEPS = 50
"""Of a bisection: enough to tell apart neighbouring float64 thresholds that matter."""


def bisect(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Two neighbouring numbers: the greatest that does not hold and the least that does (twice the least if all do)."""
    if holds(low):
        return low, low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def give_back(
    ratios: Mapping[str, float], milder: Mapping[str, float], fits: Callable[[Mapping[str, float]], bool]
) -> dict[str, float]:
    """Prune less where the target is still met: many groups can jump at the same number, more than it takes."""
    chosen = dict(ratios)
    for name, ratio in milder.items():
        if ratio < chosen[name] and fits({**chosen, name: ratio}):
            chosen[name] = ratio
    return chosen


def step_by_step(
    options: Mapping[str, Sequence[Choice]],
    milder: Mapping[str, float],
    fits: Callable[[Mapping[str, float]], bool],
) -> dict[str, float]:
    """Prune on from a plan that is a little too large, always the step of least drop for what it saves.

    At one price a wide group can jump over all its own smaller steps, far beyond the target: DBNet's laterals from 0.55
    of the network's multiply-adds to 0.40. What later steps made needless is given back.
    """
    chosen = dict(milder)
    while not fits(chosen):
        steps = [step for name, group in options.items() for step in _next_steps(name, group, chosen[name])]
        if not steps:
            break
        _, name, ratio = min(steps)
        chosen[name] = ratio
    return give_back(chosen, milder, fits)


def _next_steps(name: str, group: Sequence[Choice], ratio: float) -> list[tuple[float, str, float]]:
    """The group's next larger choice as (drop for each multiply-add saved, group, ratio); none at its end."""
    now = _choice_at(group, ratio)
    further = [choice for choice in group if choice.ratio > ratio and choice.saved > now.saved]
    if not further:
        return []
    step = min(further, key=lambda choice: choice.ratio)
    return [((step.drop - now.drop) / (step.saved - now.saved), name, step.ratio)]


def _choice_at(group: Sequence[Choice], ratio: float) -> Choice:
    return min(group, key=lambda choice: abs(choice.ratio - ratio))


def total_drop(options: Mapping[str, Sequence[Choice]], ratios: Mapping[str, float]) -> float:
    """Sum of the drops of a plan's choices, each group's pruned alone."""
    return sum(_choice_at(group, ratios[name]).drop for name, group in options.items())
