from __future__ import annotations

import pytest

from adain_core.files import write_behind


def test_calls_are_made_in_their_order_and_all_at_the_end():
    made = []
    with write_behind(depth=1) as later:
        for number in range(20):
            later(made.append, number)
    assert made == list(range(20))


def test_what_a_call_raises_is_not_lost():
    made = []
    with pytest.raises(OSError, match="disk full"), write_behind() as later:
        later(made.append, 1)
        later(_fail)
    assert made == [1]


def _fail() -> None:
    raise OSError("disk full")
