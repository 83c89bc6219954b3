"""The index of what is held and not in memory does what a dictionary does, in rising order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafetrain.core import places
from kafetrain.core.places import Places

OFFSETS = st.integers(min_value=0, max_value=60)


@pytest.fixture(autouse=True, scope="module")
def short_pieces() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "PIECE", 3)
        yield


@given(st.lists(st.tuples(st.booleans(), OFFSETS, st.integers(min_value=0, max_value=2**63 - 1))))
def test_it_is_a_dictionary_in_rising_order(steps: list[tuple[bool, int, int]]) -> None:
    ours, model = Places(), dict[int, int]()
    for is_put, offset, place in steps:
        if is_put:
            ours[offset] = model[offset] = place
        else:
            assert ours.pop(offset, None) == model.pop(offset, None)
        assert len(ours) == len(model)
        assert [offset in ours for offset in range(-1, 62)] == [offset in model for offset in range(-1, 62)]
    assert list(ours.items()) == sorted(model.items())


def test_what_is_not_in_it_is_an_error() -> None:
    ours = Places()
    with pytest.raises(KeyError):
        ours[1]
    with pytest.raises(KeyError):
        del ours[1]
