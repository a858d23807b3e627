"""Products of two computed tensors, in which labels meet: the attention of transformers.

In q k' the places of a head's width are summed over: place j of q and of k go together, and nobody reads them. What
comes out belongs to the head: it goes if all of the head's places go. In the product of attention and v the head's
places of v pass on, and go if the head goes.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compress.prune.channel_labels import NONE, Labels, varying_axes

Letters = tuple[Sequence[Hashable], Sequence[Hashable], Sequence[Hashable]]
"""Names for the axes of both factors and of the product, as in an einsum."""
_UNKNOWN = "has channels in a product that cannot be followed"


def letters_of_matmul(first: int, second: int) -> Letters | None:
    """Of a product of matrices of these numbers of dimensions.

    >>> letters_of_matmul(2, 3)
    (('m', 'k'), (-3, 'k', 'n'), (-3, 'm', 'n'))
    """
    if min(first, second) < 2:
        return None
    batch = [tuple(range(-rank, -2)) for rank in (first, second, max(first, second))]
    return (*batch[0], "m", "k"), (*batch[1], "k", "n"), (*batch[2], "m", "n")


def letters_of_einsum(equation: str) -> Letters | None:
    """Of an equation of two factors; None of one that repeats letters in a factor or leaves dimensions unnamed.

    >>> letters_of_einsum("bhid,bhjd->bhij")
    ('bhid', 'bhjd', 'bhij')
    """
    left, arrow, made = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    plain = all(part.isalpha() and len(set(part)) == len(part) for part in (*parts, made))
    return (parts[0], parts[1], made) if arrow and plain and len(parts) == 2 else None


@dataclass
class Products:
    """What is known of the heads of a network's attention."""

    heads: list[list[int]] = field(default_factory=list)
    """The labels of each attention's heads, in their order."""
    places: dict[int, set[int]] = field(default_factory=dict)
    """Label of a head -> the labels that go with it."""
    summed: set[int] = field(default_factory=set)
    """Labels that are summed over in a product, of one of its factors: zeros there silence both."""
    attended: set[int] = field(default_factory=set)
    """Labels that heads have in their rows; each head may lose other places."""

    def multiply(
        self, labels: Labels, first: Tensor, second: Tensor, letters: Letters | None, shape: Sequence[int]
    ) -> Tensor | None:
        """The labels of a product.

        Args:
            labels: all of the network's.
            first: labels of a factor.
            second: labels of the other.
            letters: what the axes are; None where it is of another form.
            shape: of the product.
        """
        if letters is None:
            _keep(labels, first, second)
            return None
        one, other = _Side(first, letters[0]), _Side(second, letters[1])
        inner = [letter for letter in letters[0] if letter in letters[1] and letter not in letters[2]]
        alone = [side.varying - set(letters[2]) - set(inner) for side in (one, other)]
        own = [
            {letter for letter in side.varying if letter not in against.letters}
            for side, against in ((one, other), (other, one))
        ]
        if alone[0] or alone[1] or (own[0] and own[1]):
            _keep(labels, first, second)
            return None
        if (one.varying | other.varying) & set(inner):
            if own[0] or own[1]:
                _keep(labels, first, second)
                return None
            return self._contract(labels, one, other, inner, letters[2], shape)
        if own[1] or (not own[0] and len(other.varying) > len(one.varying)):
            one, other = other, one
        return self._pass_on(labels, one, other, letters[2], shape)

    def _contract(
        self,
        labels: Labels,
        one: "_Side",
        other: "_Side",
        inner: Sequence[Hashable],
        made: Sequence[Hashable],
        shape: Sequence[int],
    ) -> Tensor | None:
        """Labels are summed over: those at the same place go together, and their rows are heads."""
        shared = [letter for letter in made if letter in one.varying | other.varying]
        if any(letter not in side.letters for letter in shared for side in (one, other)):
            _keep(labels, one.labels, other.labels)
            return None
        order = [*shared, *inner]
        pair = torch.broadcast_tensors(one.along(order), other.along(order))
        labels.join(pair[0], pair[1], _UNKNOWN)
        self.summed |= set(pair[0].reshape(-1).tolist()) - {NONE}
        if not shared:
            return None
        sizes = pair[0].shape[: len(shared)]
        both = torch.stack(pair, -1).reshape(sizes.numel(), -1).tolist()
        known: dict[tuple[int, ...], int] = {}
        for row in both:
            if tuple(row) not in known:
                known[tuple(row)] = int(labels.new(1))
                self.places[known[tuple(row)]] = set(row) - {NONE}
        self.heads.append(list(known.values()))
        self.attended |= {label for row in both for label in row} - {NONE}
        heads = torch.tensor([known[tuple(row)] for row in both]).reshape(sizes)
        return _spread(heads, shared, made, shape)

    def _pass_on(
        self, labels: Labels, carrier: "_Side", against: "_Side", made: Sequence[Hashable], shape: Sequence[int]
    ) -> Tensor | None:
        """Labels of one factor stay; those of heads in the other go with them."""
        if not carrier.varying:
            return None
        shared = [letter for letter in carrier.letters if letter in carrier.varying and letter in against.letters]
        foreign = [letter for letter in shared if letter not in against.varying and against.size(letter) > 1]
        if foreign or against.varying - carrier.varying:
            _keep(labels, carrier.labels, against.labels)
            return None
        order = [letter for letter in carrier.letters if letter in carrier.varying]
        places = carrier.along(order)
        if against.varying:
            heads = against.along(order)
            if set(heads.reshape(-1).tolist()) <= self.places.keys() and heads.shape != places.shape:
                pairs = torch.stack(torch.broadcast_tensors(heads, places), -1).reshape(-1, 2).tolist()
                for head, place in pairs:
                    self.places[head].add(place)
                self.attended |= {place for _, place in pairs} - {NONE}
            else:
                labels.join(heads, places, _UNKNOWN)
        return _spread(places, order, made, shape)


class _Side:
    """One factor of a product: its labels, and what its axes are called."""

    def __init__(self, labels: Tensor, letters: Sequence[Hashable]) -> None:
        self.labels, self.letters = labels, list(letters)
        self.varying = {self.letters[axis] for axis in varying_axes(labels)}

    def size(self, letter: Hashable) -> int:
        return self.labels.shape[self.letters.index(letter)]

    def along(self, order: Sequence[Hashable]) -> Tensor:
        """The labels with one axis for each letter, of size 1 where they do not vary along it."""
        picked = self.labels[tuple(slice(None) if letter in self.varying else 0 for letter in self.letters)]
        left = [letter for letter in self.letters if letter in self.varying]
        moved = picked.permute([left.index(letter) for letter in order if letter in left])
        return moved.reshape([self.size(letter) if letter in left else 1 for letter in order])


def _spread(labels: Tensor, order: Sequence[Hashable], made: Sequence[Hashable], shape: Sequence[int]) -> Tensor:
    """Labels along some letters, as a tensor of the product's shape."""
    present = [letter for letter in made if letter in order]
    moved = labels.permute([list(order).index(letter) for letter in present])
    sizes = iter(moved.shape)
    return moved.reshape([next(sizes) if letter in present else 1 for letter in made]).expand(tuple(shape))


def _keep(labels: Labels, first: Tensor, second: Tensor) -> None:
    for twin in (first, second):
        labels.keep(twin, _UNKNOWN)
