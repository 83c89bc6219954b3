"""Entries and chains in little memory: what is put in comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafetrain.core.chain import SHORT, Chain, Chains
from kafetrain.core.entries import Entries
from kafetrain.core.entry import MOST_ATTEMPTS, Entry, State

numbers = st.integers(0, (1 << 63) - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]))
entries = st.builds(
    Entry,
    key=st.none() | st.binary(),
    state=st.sampled_from(State),
    attempt=st.integers(0, MOST_ATTEMPTS + 1),
    due_ms=numbers,
    first_failure_ms=st.none() | numbers,
    error_type=st.none() | texts,
    error=st.none() | texts,
    dead_at=st.none() | st.tuples(numbers, numbers),
    log_offset=st.integers(-1, (1 << 63) - 1),
    readable=st.booleans(),
    atomic=st.booleans(),
)


@given(entries)
def test_an_entry_comes_out_as_it_went_in(entry: Entry) -> None:
    kept = Entries()
    kept[7] = entry
    assert kept[7] == kept.get(7) == entry
    assert kept.is_pending(7) is (entry.state is State.PENDING)
    assert kept.log_offset(7) == entry.log_offset
    assert dict(kept) == {7: entry}


def test_texts_and_keys_may_be_long() -> None:
    kept = Entries()
    kept[1] = entry = Entry(b"k" * 100_000, error_type="T" * 100_000, error="e" * 100_000)
    assert kept[1] == entry


def test_what_is_not_there() -> None:
    kept, chains = Entries(), Chains()
    assert kept.get(1) is None
    assert chains.get(b"k") is None
    with pytest.raises(KeyError):
        kept[1]
    with pytest.raises(KeyError):
        chains[b"k"]


@pytest.mark.parametrize("count", [1, 2, SHORT, SHORT + 1])
def test_a_chain_comes_out_as_it_went_in_however_long_it_is(count: int) -> None:
    chains, chain = Chains(), Chain(b"k")
    for offset in (*range(1, count), 0):  # the last one belongs before the others
        chain.add_open(offset)
        chains[b"k"] = chain
        chain = chains[b"k"]
    assert list(chains[b"k"].open) == list(range(count))
    for offset in range(count):
        chain = chains[b"k"]
        chain.drop_open(offset)
        chains[b"k"] = chain
    assert not chains
    assert b"k" not in chains


def test_a_chain_with_ended_ids_is_kept() -> None:
    chains, chain = Chains(), Chain(b"k")
    chain.add_ended(3)
    chains[b"k"] = chain
    assert chains[b"k"].ended == {3}
    chain.drop_ended(3)
    chains[b"k"] = chain
    assert not chains
