"""The threshold chosen from a histogram against the one found by trying every one on the values themselves."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.errors import ModelError
from compress.quant.functional import activation_scale, fake_quantize
from compress.quant.observer import UNKNOWN_ALPHA, Observer

LOWERS = [None, 0.0, -0.375]
SAMPLES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "normal": lambda rng: rng.standard_normal(50_000),
    "outliers": lambda rng: rng.standard_normal(50_000) * np.where(rng.random(50_000) < 0.001, 30, 1),
    "heavy tail": lambda rng: rng.laplace(size=50_000) ** 3,
    "mostly zero": lambda rng: np.maximum(rng.standard_normal(50_000) * 3 - 4, 0),
    "small": lambda rng: rng.uniform(-1e-3, 1e-3, 50_000),
}


def observed(x: Tensor, lower: float | None, parts: int = 1) -> Observer:
    observer = Observer(lower)
    for part in x.chunk(parts):
        observer.record(part)
    return observer


def error(x: Tensor, alpha: float, lower: float | None) -> float:
    """Mean squared error of rounding x with this threshold."""
    return float((fake_quantize(x, *activation_scale(torch.tensor(alpha), lower)) - x).square().mean())


def sample(name: str, lower: float | None) -> Tensor:
    """Values as they come in a tensor of that range."""
    x = torch.from_numpy(SAMPLES[name](np.random.default_rng(0)).astype(np.float32))
    return x if lower is None else torch.nn.functional.hardswish(x) if lower < 0 else x.relu()


@pytest.mark.parametrize("lower", LOWERS)
@pytest.mark.parametrize("name", SAMPLES)
def test_bins_hold_what_pytorchs_histogram_counts_without_zeros(
    monkeypatch: pytest.MonkeyPatch, name: str, lower: float | None
) -> None:
    monkeypatch.setattr(Observer, "COUNTED", 7000)  # in several parts
    x = sample(name, lower)
    found, values = observed(x, lower), x[x != 0]
    shifted = values.abs() if lower is None else values - lower
    assert found.top == float(shifted.max())  # of float32: a top of other rounding has other bins
    assert torch.equal(found.counts, torch.histc(shifted, Observer.BINS, 0.0, found.top).double())
    assert (found.zeros, float(found.counts.sum())) == (len(x) - len(values), len(values))


@pytest.mark.parametrize("value", [-0.375 + 1e-7, -0.375 + 5e-6, -0.3, 1e33])
def test_values_far_from_zero_are_counted_without_it(value: float) -> None:
    """Zero's bin would lie far above the histogram."""
    observer = observed(torch.full((10,), value), -0.375)
    assert (float(observer.counts.sum()), observer.zeros) == (10.0, 0)


def test_zeros_alone_leave_the_range_open() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).relu() + 0.0
    later = observed(x, -0.375)
    first = Observer(-0.375)
    first.record(torch.zeros(7))
    first.record(x)
    assert (first.top, first.zeros) == (later.top, later.zeros + 7)
    assert torch.equal(first.counts, later.counts)


@pytest.mark.parametrize("lower", LOWERS)
@pytest.mark.parametrize("name", SAMPLES)
def test_threshold_has_the_least_squared_error(name: str, lower: float | None) -> None:
    x = sample(name, lower)
    found = observed(x, lower).best_alpha()
    tried = np.linspace(1, 400, 400) / 400 * float(x.abs().max())
    least = min(error(x, float(alpha), lower) for alpha in tried)
    assert error(x, found, lower) <= 1.02 * least


@pytest.mark.parametrize("lower", LOWERS)
@pytest.mark.parametrize("percentile", [50.51, 90.01, 99.91, 100.0])
def test_percentile(lower: float | None, percentile: float) -> None:
    x = sample("normal", lower)
    observer = observed(x, lower)
    values = x.abs() if lower is None else x
    exact = float(np.percentile(values, percentile, method="inverted_cdf"))
    bin_width = observer.top / Observer.BINS
    assert observer.best_alpha(percentile) == pytest.approx(max(exact, 1e-4), abs=1.01 * bin_width)


@pytest.mark.parametrize("lower", LOWERS)
def test_all_of_them_is_the_maximum(lower: float | None) -> None:
    x = sample("outliers", lower)
    assert observed(x, lower).best_alpha(100.0) == pytest.approx(float(x.abs().max()), rel=1e-3)


@pytest.mark.parametrize("lower", LOWERS)
def test_growing_values_double_the_top_and_lose_nothing(lower: float | None) -> None:
    """Sorted, each part is larger than all before: the histogram is that of all of them, in coarser bins."""
    x = sample("heavy tail", lower).sort(stable=True).values
    x = x[x.abs().argsort()]
    whole, grown = observed(x, lower), observed(x, lower, parts=40)
    assert grown.counts.sum() + grown.zeros == len(x)
    assert grown.zeros == whole.zeros == int((x == 0).sum())
    assert whole.top <= grown.top < 2 * whole.top * 1.001
    kept = x[x != 0]
    expected = torch.histc((kept.abs() if lower is None else kept - lower), Observer.BINS, 0.0, grown.top)
    # A value on the border of two bins may fall into either one, since the borders were computed for another top.
    assert (grown.counts.cumsum(0) - expected.cumsum(0)).abs().max() <= 2


@pytest.mark.parametrize("lower", LOWERS)
def test_zeros_alone_leave_a_usable_range(lower: float | None) -> None:
    assert observed(torch.zeros(100), lower).best_alpha() == UNKNOWN_ALPHA
    assert observed(torch.zeros(100), lower).best_alpha(99.0) == UNKNOWN_ALPHA


@pytest.mark.parametrize("lower", LOWERS)
def test_zeros_before_the_first_value_count(lower: float | None) -> None:
    x = torch.cat([torch.zeros(1000), sample("normal", lower).abs()])
    split = Observer(lower)
    split.record(x[:1000])
    split.record(x[1000:])
    assert split.zeros == int((x == 0).sum())
    assert split.best_alpha() == pytest.approx(observed(x, lower).best_alpha(), rel=0.03)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_an_error(value: float) -> None:
    with pytest.raises(ModelError, match="computes NaN or infinity on calibration images"):
        Observer(None).record(torch.tensor([1.0, value]))


def test_counts_stay_exact_beyond_what_float32_counts() -> None:
    observer = Observer(0.0)
    observer.record(torch.tensor([1.0]))
    observer.counts[-1] = 2.0**24
    observer.record(torch.tensor([1.0]))
    assert observer.counts[-1] == 2.0**24 + 1


@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0, 100.0])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_two_sided_range_rounds_as_well_as_any_that_was_tried(name: str, shift: float) -> None:
    """Against the ranges of all thresholds, cut to the values, on the values themselves."""
    x = sample(name, None) + shift
    least, most = min(0.0, float(x.min())), max(0.0, float(x.max()))
    observer = Observer(None, two_sided=True)
    for part in x.chunk(3):
        observer.record(part)
    lower, alpha = observer.best_range()
    assert lower is not None
    assert least <= lower <= 0 < alpha <= max(1e-4, most)
    tried = np.linspace(0, float(x.abs().max()), 65)[1:]
    best = min(error(x, max(1e-4, min(each, most)), max(-each, least)) for each in tried)
    assert error(x, alpha, lower) <= 1.02 * best + (alpha - lower) ** 2 * 1e-6  # zero's place is rounded


def test_a_two_sided_percentile_is_cut_to_the_values() -> None:
    x = torch.cat([torch.linspace(-1, 0, 1001), torch.linspace(0, 9, 9001)])
    observer = Observer(None, two_sided=True)
    observer.record(x)
    lower, alpha = observer.best_range(99.0)
    assert (lower, alpha) == pytest.approx((-1.0, 8.9), abs=0.02)
    observer = Observer(None, two_sided=True)
    observer.record(-x)
    lower, alpha = observer.best_range(99.0)
    assert (lower, alpha) == pytest.approx((-8.9, 1.0), abs=0.02)


def test_of_what_readers_cannot_tell_apart_nothing_is_kept() -> None:
    """In front of a hard-swish: most values lie far below -3, and the range is as if they were -3."""
    x = torch.cat([torch.linspace(-40, -3, 9000), torch.linspace(-3, 5, 1000)])
    cut, whole = (Observer(None, two_sided=True, within=within) for within in ((-3.0, np.inf), (-np.inf, np.inf)))
    for observer in (cut, whole):
        observer.record(x)
    assert cut.best_range(100.0) == pytest.approx((-3.0, 5.0), abs=0.01)
    assert whole.best_range(100.0) == pytest.approx((-40.0, 5.0), abs=0.05)


def test_symmetric_ranges_do_not_look_at_sides() -> None:
    x = sample("normal", None) - 3
    assert observed(x, None).best_range() == (None, observed(x, None).best_alpha())
    assert torch.equal(observed(x, None).negative, torch.zeros(Observer.BINS, dtype=torch.float64))


def test_a_two_sided_range_of_a_tensor_that_was_always_zero_has_room_on_both_sides() -> None:
    observer = Observer(None, two_sided=True, within=(-0.5, np.inf))
    observer.record(torch.zeros(4))
    assert observer.best_range() == (-0.5, UNKNOWN_ALPHA)
