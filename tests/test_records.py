"""Records to TOML and back, and what is said of a table that does not fit."""

import tomllib
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colorflow_rt.errors import PackError
from colorflow_rt.records import read_record, write_toml


@dataclass(frozen=True)
class Axis:
    name: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Inner:
    ratio: float
    exact: bool
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    axes: tuple[Axis, ...]
    hashes: dict[str, str]
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    note: str = ""


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
ANY = st.recursive(
    st.booleans() | st.integers() | NUMBERS | TEXT,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
    max_leaves=8,
)
OUTERS = st.builds(
    Outer,
    TEXT,
    st.builds(Inner, NUMBERS, st.booleans(), st.lists(st.tuples(st.integers(), st.integers()), max_size=3).map(tuple)),
    st.lists(st.builds(Axis, TEXT, st.lists(st.integers() | TEXT, max_size=4).map(tuple)), max_size=3).map(tuple),
    st.dictionaries(TEXT, TEXT, max_size=3),
    st.dictionaries(TEXT, st.dictionaries(TEXT, ANY, max_size=3), max_size=2),
    TEXT,
)

GOOD: dict[str, Any] = {
    "name": "a",
    "inner": {"ratio": 1, "exact": True, "sizes": [[1, 2]]},
    "axes": [{"name": "x", "shape": ["B", 3]}],
    "hashes": {},
}


@given(OUTERS)
@settings(max_examples=200, deadline=None)
def test_round_trip(record: Outer) -> None:
    assert read_record(Outer, tomllib.loads(write_toml(record))) == record


def test_the_text_is_for_people() -> None:
    record = Outer("a", Inner(0.5, True, ((1, 2),)), (Axis("x", ("B", 3)),), {"m.onnx": "sha256:0"})
    assert write_toml(record) == (
        'name = "a"\naxes = [\n  { name = "x", shape = ["B", 3] },\n]\nnote = ""\n\n[inner]\nratio = 0.5\n'
        'exact = true\nsizes = [[1, 2]]\n\n[hashes]\n"m.onnx" = "sha256:0"\n\n[modules]\n'
    )


def test_a_whole_number_is_a_number_and_defaults_hold() -> None:
    record = read_record(Outer, GOOD)
    assert isinstance(record.inner.ratio, float)
    assert (record.note, record.modules) == ("", {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": 1}, "colour is unknown, expected one of name, inner, axes, hashes, modules, note"),
        ({"inner": {"ratio": 1, "exact": True, "size": []}}, "inner.size is unknown, expected one of ratio"),
        ({"inner": {"ratio": 1, "exact": True}}, "inner.sizes is missing"),
        ({"inner": 3}, "inner is 3, expected a table"),
        ({"name": 3}, "name is 3, expected a string"),
        ({"inner": GOOD["inner"] | {"ratio": True}}, "inner.ratio is True, expected a number"),
        ({"inner": GOOD["inner"] | {"ratio": float("nan")}}, "inner.ratio is nan, expected a number"),
        ({"inner": GOOD["inner"] | {"ratio": float("inf")}}, "inner.ratio is inf, expected a number"),
        ({"inner": GOOD["inner"] | {"ratio": 10**400}}, "expected a number"),
        ({"inner": GOOD["inner"] | {"exact": 1}}, "inner.exact is 1, expected true or false"),
        ({"inner": GOOD["inner"] | {"sizes": 1}}, "inner.sizes is 1, expected an array"),
        ({"inner": GOOD["inner"] | {"sizes": [[1, 2, 3]]}}, r"inner.sizes\[0\] has 3 values, expected 2"),
        ({"inner": GOOD["inner"] | {"sizes": [[1, 2.0]]}}, r"inner.sizes\[0\]\[1\] is 2.0, expected a whole"),
        ({"axes": [{"name": "x", "shape": [1.5]}]}, r"axes\[0\].shape\[0\] is 1.5, expected a whole number or a s"),
        ({"hashes": {"a": 1}}, "hashes.a is 1, expected a string"),
        ({"hashes": []}, r"hashes is \[\], expected a table"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PackError, match=message):
        read_record(Outer, GOOD | change)


def test_what_toml_cannot_hold_is_named() -> None:
    record = read_record(Outer, GOOD | {"modules": {"unet": {"width": None}}})
    with pytest.raises(PackError, match=r"modules.unet.width is None, which TOML cannot hold"):
        write_toml(record)
