"""Numbers and facts of a report as text."""

from collections.abc import Mapping, Sequence

from compress.artifacts import (
    Figure,
    Interval,
    Latency,
    Machine,
    Parity,
    Reading,
    Score,
)

NONE = "-"


def with_interval(figure: Figure) -> str:
    """
    >>> with_interval(Figure(0.9, 0.0, Interval(0.88, 0.92))), with_interval(Figure(0.9, 0.0))
    ('0.9000 [0.8800, 0.9200]', '0.9000')
    """
    return f"{figure.value:.4f}" + (f" {interval(figure.interval)}" if figure.interval else "")


def drop_with_interval(figure: Figure) -> str:
    """
    >>> drop_with_interval(Figure(0.9, 0.01, None, Interval(-0.01, 0.03)))
    '+0.0100 [-0.0100, +0.0300]'
    """
    return f"{figure.drop:+.4f}" + (f" {interval(figure.drop_interval, sign='+')}" if figure.drop_interval else "")


def interval(value: Interval, sign: str = "") -> str:
    """Both ends, in brackets."""
    return f"[{value.low:{sign}.4f}, {value.high:{sign}.4f}]"


def reading(value: Reading) -> str:
    """What a model made of an image.

    >>> reading(Reading("EXIT", 0.0)), reading(Reading("", 1.0)), reading(Reading(None, 1.0))
    ('EXIT', '(nothing)', '(unusable output)')
    """
    return "(unusable output)" if value.text is None else value.text or "(nothing)"


def images_of(count: int, skipped: Sequence[str]) -> str:
    """How many images a metric is of, and what of the data was skipped.

    >>> images_of(19, ["1 of 20 images skipped"]), images_of(20, [])
    ('19 images (1 of 20 images skipped)', '20 images')
    """
    return f"{count} images" + (f" ({'; '.join(skipped)})" if skipped else "")


def scored(score: Score) -> str:
    """What a score is of, as `images_of`."""
    return images_of(score.count, score.skipped)


def postprocessing_line(settings: Mapping[str, float]) -> str:
    """What follows the model, as it was set; empty where nothing can be.

    >>> postprocessing_line({"threshold": 0.3, "max_candidates": 1000})
    'post-processing: threshold 0.3, max_candidates 1000'
    """
    return f"post-processing: {', '.join(f'{name} {value:g}' for name, value in settings.items())}" if settings else ""


def machine_line(machine: Machine) -> str:
    """Where figures were measured, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return f"{machine.cpu}, {machine.cores} cores ({' '.join(machine.flags) or 'no flags'}), {machine.os}; {versions}"


def count(value: float) -> str:
    """
    >>> count(512), count(124_330), count(13_400_000)
    ('512', '124.3 k', '13.40 M')
    """
    if value >= 1e6:
        return f"{value / 1e6:.2f} M"
    return f"{value / 1e3:.1f} k" if value >= 1e4 else f"{value:g}"


def kilobytes(size_bytes: int) -> str:
    """KB of 1000 bytes.

    >>> kilobytes(585_532)
    '585.5'
    """
    return f"{size_bytes / 1000:.1f}"


def ratio(value: float, base: float) -> str:
    """
    >>> ratio(50, 200), ratio(1, 0)
    ('0.25x', '-')
    """
    return f"{value / base:.2f}x" if base else NONE


def milliseconds(latency: Latency) -> str:
    """Median, and the 10th to 90th percentile."""
    return f"{latency.median_ms:.2f} [{latency.p10_ms:.2f}-{latency.p90_ms:.2f}]"


def parity(value: Parity) -> str:
    """The largest difference of an integer tensor in steps, and the mean one of the outputs; optimisation off / on.

    Where they were measured, also the largest share of a tensor's values that differ, and the largest bias, of both.

    >>> parity(Parity(0.02, 0.001, 0.03, 0.002, 1.0, 1.0, 32, 1.0, 1.0))
    '1.0 / 1.0 steps, outputs 0.0010 / 0.0020'
    >>> parity(Parity(0.02, 0.001, 0.03, 0.002, 1.0, 1.0, 32, 1.0, 1.0, max_share=0.0011, max_bias=-0.0004))
    '1.0 / 1.0 steps (at most 0.11% of values, bias -0.0004), outputs 0.0010 / 0.0020'
    """
    steps = f"{value.max_steps:.1f} / {value.max_steps_optimised:.1f} steps"
    if value.max_share is not None and value.max_bias is not None:
        steps += f" (at most {value.max_share:.2%} of values, bias {value.max_bias:+.4f})"
    return f"{steps}, outputs {value.mean_abs:.4f} / {value.mean_abs_optimised:.4f}"
