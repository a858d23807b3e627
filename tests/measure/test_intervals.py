"""Bootstrap intervals: against their normal approximation, exact cases, and what pairing is worth."""

import numpy as np
import pytest

from compress.measure.intervals import bootstrap, interval, ratio_of_sums, share_tallies


def shares(images: int, share: float, seed: int = 0) -> np.ndarray:
    """Tallies of images of which a share is right, [1, N, 2]."""
    right = np.arange(images) < round(share * images)
    return share_tallies(np.random.default_rng(seed).permutation(right))[None]


@pytest.mark.parametrize(("images", "share"), [(300, 0.7), (500, 0.45), (800, 0.9)])
def test_a_share_has_the_interval_of_its_standard_error(images: int, share: float) -> None:
    """p -+ 1.96 sqrt(p (1 - p) / N), to a twentieth of its width."""
    low, high = interval(bootstrap(shares(images, share), resamples=5_000)[:, 0])
    half = 1.96 * np.sqrt(share * (1 - share) / images)
    assert low == pytest.approx(share - half, abs=0.1 * half)
    assert high == pytest.approx(share + half, abs=0.1 * half)


def test_resampling_equals_drawing_images_one_by_one() -> None:
    """An independent implementation: indices, not counts; the ratio is of sums, not a mean of ratios."""
    rng = np.random.default_rng(3)
    tallies = np.stack([rng.integers(0, 5, 40), rng.integers(5, 9, 40)], axis=-1)[None]
    drawn = [tallies[0, rng.integers(0, 40, 40)].sum(0) for _ in range(20_000)]
    expected = interval(np.array([found / regions for found, regions in drawn]))
    assert interval(bootstrap(tallies, resamples=20_000)[:, 0]) == pytest.approx(expected, abs=0.005)


def test_the_same_seed_gives_the_same_figures_and_another_does_not() -> None:
    tallies = shares(50, 0.5)
    assert np.array_equal(bootstrap(tallies, 100), bootstrap(tallies, 100))
    assert not np.array_equal(bootstrap(tallies, 100), bootstrap(tallies, 100, seed=1))


def test_draws_in_parts_are_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many images are resampled in parts that fit in memory."""
    tallies = shares(50, 0.5)
    whole = bootstrap(tallies, 101)
    monkeypatch.setattr("compress.measure.intervals.CELLS", 500)
    assert np.array_equal(bootstrap(tallies, 101), whole)


def test_files_are_resampled_on_the_same_images() -> None:
    """Two files that differ in one image of 100 differ by at most a few hundredths, however hard the images are."""
    first = shares(100, 0.5)[0]
    second = first.copy()
    second[np.flatnonzero(first[:, 0])[0], 0] = 0
    figures = bootstrap(np.stack([first, second]))
    low, high = interval(figures[:, 0] - figures[:, 1])
    assert low == 0
    assert 0.01 <= high <= 0.04
    alone = interval(bootstrap(first[None])[:, 0] - bootstrap(second[None], seed=1)[:, 0])
    assert alone[1] - alone[0] > 5 * (high - low)


def test_equal_files_do_not_differ() -> None:
    figures = bootstrap(np.concatenate([shares(30, 0.3), shares(30, 0.3)]))
    assert not (figures[:, 0] - figures[:, 1]).any()


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_nothing_varies_where_all_images_agree(share: float, expected: float) -> None:
    assert interval(bootstrap(shares(20, share))[:, 0]) == (expected, expected)


def test_nothing_to_find_and_nothing_found_is_right() -> None:
    assert ratio_of_sums(np.zeros((5, 2))) == 1.0
    assert (bootstrap(np.zeros((1, 5, 2)), 10) == 1.0).all()
