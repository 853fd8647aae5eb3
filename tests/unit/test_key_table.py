# SPDX-License-Identifier: GPL-2.0-or-later
"""A key has one owner or none, whatever ranges owners claim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_service.routing.key_table import KeyRange, KeyTable, OverlapError

TOP = (1 << 64) - 1
RANGES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 6)).map(lambda pair: KeyRange(pair[0], pair[0] + pair[1])), max_size=5
)


@given(st.dictionaries(st.sampled_from("abc"), RANGES))
def test_it_answers_as_a_set_of_keys_for_each_owner_does(owned: dict[str, list[KeyRange]]) -> None:
    sets = {owner: {key for each in keys for key in range(each.first, each.last + 1)} for owner, keys in owned.items()}
    holders = {key: [owner for owner in sets if key in sets[owner]] for key in range(50)}
    shared = [key for key, found in holders.items() if len(found) > 1]
    if shared:
        with pytest.raises(OverlapError) as raised:
            KeyTable(owned)
        assert raised.value.key == shared[0]
        assert set(raised.value.owners) <= set(holders[shared[0]])
        assert len(set(raised.value.owners)) == 2
        return
    table = KeyTable(owned)
    assert {key: table.find(key) for key in holders} == {key: next(iter(found), None) for key, found in holders.items()}


def test_keys_have_64_bits() -> None:
    table = KeyTable({"low": [KeyRange(0, 0)], "most": [KeyRange(1, TOP - 1)], "last": [KeyRange(TOP, TOP)]})
    assert [table.find(key) for key in (0, 1, 1 << 63, TOP - 1, TOP)] == ["low", "most", "most", "most", "last"]


def test_nobody_owns_anything_of_an_empty_table() -> None:
    assert KeyTable({"a": []}).find(0) is None
