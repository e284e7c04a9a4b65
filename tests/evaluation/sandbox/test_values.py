"""What passes between the process of a test and that of a program: plain values, whatever bytes arrive."""

from __future__ import annotations

import collections
import contextlib
import decimal
import enum
import fractions
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelab.evaluation.sandbox.values import Foreign, Reader, Writer

FAULTS = (ValueError, IndexError, TypeError, RecursionError, ArithmeticError)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.just(...)
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.sets(HASHABLE, max_size=4)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.binary().map(bytearray)
    ),
    max_leaves=12,
)


def sent(value: object) -> Any:
    return Reader(Writer([]).value(value), []).value()


def types_of(value: Any) -> Any:
    if isinstance(value, dict):
        return [(types_of(key), types_of(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [types_of(each) for each in value]
    return type(value)


@given(VALUES)
def test_plain_values_arrive_as_they_are(value: object) -> None:
    arrived = sent(value)
    assert arrived == value
    assert types_of(arrived) == types_of(value)


def test_floats_that_are_no_numbers_arrive() -> None:
    assert math.isnan(sent(math.nan))
    assert sent([math.inf, -math.inf]) == [math.inf, -math.inf]
    assert math.copysign(1, sent(-0.0)) == -1
    assert sent(7**9999) == 7**9999


def test_what_is_derived_from_a_plain_type_arrives_as_it() -> None:
    point = collections.namedtuple("point", "x y")

    class Colour(enum.IntEnum):
        RED = 3

    for value, plain in (
        (point(1, 2), (1, 2)),
        (Colour.RED, 3),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        ({"a": 1}.keys(), {"a"}),
        (decimal.Decimal("1.50"), decimal.Decimal("1.5")),
        (fractions.Fraction(1, 3), fractions.Fraction(1, 3)),
    ):
        assert sent(value) == plain


def test_iterables_arrive_with_their_items_and_are_equal_to_nothing() -> None:
    assert list(sent(x for x in (1, 2))) == [1, 2]
    assert next(sent(map(str, [1]))) == "1"
    queue = sent(collections.deque([1, 2]))
    assert (len(queue), queue[1], list(queue)) == (2, 2, [1, 2])
    assert queue != [1, 2]
    assert bool(sent(range(0))) is False

    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    arrived = sent([Equal()])
    assert isinstance(arrived[0], Foreign)
    assert arrived != [1]
    assert repr(arrived) == "[<Equal object>]"
    with pytest.raises(TypeError, match="'Equal' object of the program's process"):
        len(arrived[0])


def test_an_overridden_comparison_does_not_travel() -> None:
    class Lies(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    assert Lies(1) == 2
    assert sent(Lies(1)) != 2
    assert sent([Lies(1)]) != [2]


def test_what_occurs_twice_or_in_itself_does_so_on_the_other_side() -> None:
    inner: list[object] = [1]
    inner.append(inner)
    arrived = sent({"a": inner, "b": inner})
    assert arrived["a"] is arrived["b"]
    assert arrived["a"][1] is arrived["a"]


@given(st.binary(max_size=60))
def test_no_bytes_make_anything_but_a_value_or_an_exception(data: bytes) -> None:
    with contextlib.suppress(*FAULTS):
        Reader(data, []).value()


@given(VALUES, st.data())
def test_damaged_messages_make_a_value_or_an_exception(value: object, data: st.DataObject) -> None:
    message = bytearray(Writer([]).value(value))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(*FAULTS):
        Reader(bytes(message), []).value()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"l99999999999:",
        b"s-1:",
        b"l1:9" + b"l1:1" * 3000,
        b"r1:0",
        b"d1:1N",
        b"Z3:100",
        b"s99999999999999999999999:x",
    ],
)
def test_impossible_messages_raise(message: bytes) -> None:
    with pytest.raises(FAULTS):
        Reader(message, []).value()


def test_a_test_passes_plain_values_only() -> None:
    for value in (lambda: 0, object(), range(3)):
        with pytest.raises(TypeError, match="is not a plain value"):
            Writer([], plain_only=True).value([value])
