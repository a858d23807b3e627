"""Labels: what is joined, what stays and why, and the order in which rows are read."""

import pytest
import torch
from torch import Tensor

from compress.prune.channel_labels import NONE, Labels, thinned
from compress.prune.followed import FOREIGN, Followed
from compress.prune.layouts import Layouts, target_of
from compress.prune.products import Products, letters_of_einsum, letters_of_matmul


def classes(labels: Labels) -> set[frozenset[int]]:
    return {frozenset(some) for some in labels.classes().values()}


def test_joined_labels_go_together() -> None:
    labels = Labels()
    labels.owned("a", 3), labels.owned("b", 3)
    labels.join(torch.tensor([1, 2, 3]), torch.tensor([4, 5, 5]), "")
    assert classes(labels) == {frozenset({1, 4}), frozenset({2, 3, 5}), frozenset({6})}
    assert (labels.owners[5].name, labels.owners[5].index) == ("b", 1)


def test_what_meets_an_element_without_a_label_stays_and_so_does_all_that_goes_with_it() -> None:
    labels = Labels()
    labels.new(3)
    labels.join(torch.tensor([1, 2]), torch.tensor([NONE, 3]), "first reason")
    labels.join(torch.tensor([1]), torch.tensor([3]), "")
    labels.keep([3], "second reason")
    assert labels.reasons() == {labels.find(2): "first reason"}


def test_what_is_added_is_joined_and_broadcast_gates_are_not() -> None:
    followed = Followed()
    channels, gate = followed.labels.owned("conv", 4), followed.labels.owned("gate", 1)
    shape = (2, 4, 5, 5)
    x = channels.reshape(1, 4, 1, 1).expand(shape)
    made = followed.meet([x, gate.reshape(1, 1, 1, 1).expand(2, 1, 5, 5)], {}, [], shape)
    assert torch.equal(made, x)
    assert len(followed.labels.classes()) == 5
    followed.meet([x], {"scale": torch.ones(1, 4, 1, 1)}, [], shape)
    assert len(followed.labels.classes()) == 5  # the constant's slices are joined with the channels
    assert {owner.name for owner in followed.labels.owners.values()} == {"conv", "gate", "scale"}
    followed.meet([x], {}, [torch.ones(2, 1, 5, 5)], shape)
    assert FOREIGN not in followed.labels.reasons().values()
    followed.meet([x], {}, [torch.ones(2, 4, 5, 5)], shape)
    assert list(followed.labels.reasons().values()).count(FOREIGN) == 4


@pytest.mark.parametrize(("order", "mixed"), [((0, 1), False), ((1, 0), True)], ids=["back", "shuffled"])
def test_rows_that_are_read_in_another_order_are_mixed(order: tuple[int, int], mixed: bool) -> None:
    layouts, labels = Layouts(), thinned(torch.arange(1, 7).reshape(1, 6).expand(2, 6))
    rows = layouts.reshaped("split", labels, (2, 2, 3), (0, 2, 3))
    layouts.reshaped("join", rows.permute(0, *(axis + 1 for axis in order)), (2, 6), (0, -1))
    assert [grid.mixed for grid in layouts.grids] == [mixed]
    assert layouts.grids[0].rows == [[1, 2, 3], [4, 5, 6]]
    assert layouts.sizes[0].counted.keys() == {1, 2}


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ((2, 7, 12), (2, 7, 3, 4), (0, 0, 3, 4)),
        ((2, 7, 12), (14, 12), (-1, 12)),
        ((2, 7, 12), (2, 7 * 3, 4), (0, -1, 4)),
    ],
    ids=["heads", "rows", "heads with steps"],
)
def test_a_target_in_numbers(before: tuple[int, ...], after: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    labels = torch.arange(1, 13).expand(before)
    assert target_of(before, labels, after) == wanted


def head_labels(first: int) -> Tensor:
    """[N, heads, T, places] of 2 heads of 3 places."""
    return torch.arange(first, first + 6).reshape(1, 2, 1, 3).expand(2, 2, 5, 3)


@pytest.mark.parametrize("einsum", [False, True])
def test_places_of_queries_and_keys_go_together_and_values_with_their_head(einsum: bool) -> None:
    labels, products = Labels(), Products()
    q, k, v = (head_labels(int(labels.new(6)[0])) for _ in range(3))
    inner = letters_of_einsum("nhtc,nhsc->nhts") if einsum else letters_of_matmul(4, 4)
    outer = letters_of_einsum("nhts,nhsc->nhtc") if einsum else letters_of_matmul(4, 4)
    heads = products.multiply(labels, q, k if einsum else k.transpose(2, 3), inner, (2, 2, 5, 5))
    assert heads is not None
    made = products.multiply(labels, heads, v, outer, (2, 2, 5, 3))
    assert made is not None
    assert torch.equal(made, v)
    assert {frozenset({1 + place, 7 + place}) for place in range(6)} <= classes(labels)
    first, second = products.heads[0]
    assert products.places == {first: {1, 2, 3, 7, 8, 9, 13, 14, 15}, second: {4, 5, 6, 10, 11, 12, 16, 17, 18}}
    assert products.summed == set(range(1, 7))
    assert not labels.reasons()


def test_products_of_channels_with_channels_keep_them() -> None:
    """Keys times values, as in linear attention: each channel meets each."""
    labels, products = Labels(), Products()
    k, v = (head_labels(int(labels.new(6)[0])) for _ in range(2))
    assert products.multiply(labels, k.transpose(2, 3), v, letters_of_matmul(4, 4), (2, 2, 3, 3)) is None
    assert len(labels.reasons()) == 12
