"""How the chains of a partition are kept: most as a number, and nobody who looks at one can tell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafetrain.core.chain import Chain, Chains

offsets = st.sets(st.integers(0, 50), max_size=4)


@given(offsets, offsets)
def test_what_was_put_is_found(open_ids: set[int], ended: set[int]) -> None:
    chain, chains = Chain(b"key"), Chains()
    for offset in sorted(open_ids):
        chain.add_open(offset)
    for offset in ended - open_ids:
        chain.add_ended(offset)
    chains[b"key"] = chain
    found = chains.get(b"key")
    if not open_ids and not ended:
        assert found is None
        assert not chains
        return
    assert found is not None
    assert (found.key, list(found.open), set(found.ended)) == (b"key", sorted(open_ids), ended - open_ids)


@pytest.mark.parametrize("offset", [0, 7])
def test_a_single_id_is_kept_as_a_number(offset: int) -> None:
    chains = Chains()
    for key, add in ((b"open", Chain.add_open), (b"ended", Chain.add_ended)):
        chain = Chain(key)
        add(chain, offset)
        chains[key] = chain
    assert all(isinstance(kept, int) for kept in chains.kept.values())
    assert list(chains[b"open"].open) == list(chains[b"ended"].ended) == [offset]
    assert not chains[b"open"].ended
    assert not chains[b"ended"].open


def test_an_ended_id_of_which_a_later_one_opens_and_both_are_forgotten() -> None:
    chains = Chains()
    chain = Chain(b"key")
    chain.add_ended(3)
    chains[b"key"] = chain
    chain = chains[b"key"]
    chain.add_open(5)
    chains[b"key"] = chain
    assert (list(chains[b"key"].open), set(chains[b"key"].ended)) == ([5], {3})
    chain = chains[b"key"]
    chain.drop_ended(3)
    chain.drop_open(5)
    chains[b"key"] = chain
    assert b"key" not in chains
