"""Prefetching: same items, same order, errors in their place, no thread left behind."""

import itertools
import threading

import pytest

from compress.data.prefetch import prefetch


def threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


def test_items_come_in_order():
    assert list(prefetch(iter(range(100)))) == list(range(100))
    assert threads() == 0


def test_nothing_is_not_an_error():
    assert list(prefetch(iter(()))) == []


def test_an_error_is_raised_where_the_item_would_have_come():
    def items():
        yield 1
        raise ValueError("broken item")

    iterator = prefetch(items())
    assert next(iterator) == 1
    with pytest.raises(ValueError, match="broken item"):
        next(iterator)
    assert threads() == 0


def test_closing_early_ends_the_thread():
    iterator = prefetch(itertools.count(), depth=2)
    assert next(iterator) == 0
    assert threads() == 1
    iterator.close()
    assert threads() == 0


def test_no_more_than_depth_is_made_ahead():
    made = []
    iterator = prefetch((made.append(i) or i for i in range(100)), depth=3)
    next(iterator)
    threading.Event().wait(0.1)
    # Three in the queue, one waiting for a place, one handed out.
    assert len(made) <= 5
    iterator.close()
