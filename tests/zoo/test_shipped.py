"""Models that ship with the package are found by name."""

import pytest

from compress.errors import ModelError
from compress.zoo import shipped, shipped_names


def test_every_shipped_model_is_a_file():
    assert all(shipped(name).is_file() for name in shipped_names())


def test_an_unknown_name_is_refused_with_the_allowed_ones():
    with pytest.raises(ModelError, match=r"'no_such_model' is no shipped model. Allowed: "):
        shipped("no_such_model")
