"""Values that are kept of each call's images, within a number of bytes."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from compress.errors import DataError
from compress.pipeline.scanning.kept_values import KeptValues, Values

IMAGES = [np.full((2, 1, 2, 2), number, np.float32) for number in range(2)]
BYTES = IMAGES[0].nbytes


class Counted:
    """Makes prefixes whose values a, b, c are the images times 1, 2, 3; remembers what was computed of which images."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, int]] = []

    def __call__(self, names: Sequence[str]) -> Callable[[np.ndarray], Values]:
        def run(images: np.ndarray) -> Values:
            self.runs.append(("".join(names), len(images)))
            return {name: images * ("abc".index(name) + 1) for name in names}

        return run


def ask(kept: KeptValues, names: str, later: Sequence[str] = ()) -> None:
    for call, images in enumerate(IMAGES):
        found = kept.get(list(names), call, images, [list(some) for some in later])
        assert all(np.array_equal(found[name], images * ("abc".index(name) + 1)) for name in names)


def test_values_of_later_groups_come_with_the_first_where_all_images_are_known() -> None:
    prefix = Counted()
    kept = KeptValues(prefix, 6 * BYTES)
    for call, images in enumerate(IMAGES):
        kept.expect(call, images)
    for names in ("a", "b", "c"):
        ask(kept, names, ["a", "b", "c"])
    assert prefix.runs == [("abc", 1), ("abc", 2), ("abc", 2)]  # sizes by one image, then each call once
    assert kept.nbytes == 6 * BYTES


def test_without_knowing_the_images_only_what_is_asked_for() -> None:
    prefix = Counted()
    kept = KeptValues(prefix, 6 * BYTES)
    ask(kept, "a", ["b"])
    assert prefix.runs == [("a", 2), ("a", 2)]
    ask(kept, "b", ["c"])
    assert prefix.runs[2:] == [("bc", 1), ("bc", 2), ("bc", 2)]


def test_what_does_not_fit_is_computed_each_time() -> None:
    prefix = Counted()
    kept = KeptValues(prefix, BYTES)
    for _ in range(2):
        ask(kept, "a")
    assert prefix.runs == [("a", 2)] * 3  # the first call's is kept
    assert kept.nbytes == BYTES


def test_other_images_are_refused() -> None:
    kept = KeptValues(Counted(), 6 * BYTES)
    kept.expect(0, IMAGES[0])
    with pytest.raises(DataError, match=r"^the task gives other images each time it scores, or in another order"):
        kept.get(["a"], 0, IMAGES[1])
