"""Frozen dataclasses to TOML and back, every key and type checked.

A field's type may be int, float, str, bool, a union of these, Any, another dataclass, tuple[...] or
dict[str, ...]. Ranges are the business of the dataclasses themselves (`__post_init__`).
"""

import dataclasses
import json
import re
import tomllib
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from colorflow_rt.errors import PackError

Record = TypeVar("Record")

_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def read_record(cls: type[Record], table: object, where: str = "") -> Record:
    """`table` as a `cls`; PackError names the first key that is unknown, missing or of the wrong type."""
    entries = _require_table(table, where)
    fields = _fields(cls)
    if unknown := [key for key in entries if key not in fields]:
        raise PackError(f"{_join(where, unknown[0])} is unknown, expected one of {', '.join(fields)}")
    if missing := [name for name, needed in fields.items() if needed and name not in entries]:
        raise PackError(f"{_join(where, missing[0])} is missing")
    hints = get_type_hints(cls)
    return cls(**{key: _value(hints[key], value, _join(where, key)) for key, value in entries.items()})


def read_toml(cls: type[Record], text: str) -> Record:
    """The record of a TOML document; PackError says what is wrong in it."""
    try:
        return read_record(cls, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise PackError(f"not TOML: {error}") from error


def write_toml(record: object) -> str:
    """The record as a TOML document that `read_record` takes back to an equal one."""
    return _table("", record).lstrip("\n")


def _fields(record: Any) -> dict[str, bool]:
    """Names of the fields, and whether each must be given."""
    missing = dataclasses.MISSING
    return {f.name: f.default is missing and f.default_factory is missing for f in dataclasses.fields(record)}


def _require_table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PackError(f"{where} is {value!r:.60}, expected a table")
    return value


def _value(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return read_record(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        return _array(get_args(kind), value, where)
    if get_origin(kind) is dict:
        of = get_args(kind)[1]
        return {key: _value(of, one, _join(where, key)) for key, one in _require_table(value, where).items()}
    return _plain(get_args(kind) or (kind,), value, where)


def _array(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise PackError(f"{where} is {value!r:.60}, expected an array")
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise PackError(f"{where} has {len(value)} values, expected {len(kinds)}")
    return tuple(_value(kind, one, f"{where}[{i}]") for i, (kind, one) in enumerate(zip(kinds, value, strict=True)))


def _plain(kinds: tuple[type, ...], value: Any, where: str) -> Any:
    if type(value) in kinds and value == value and value not in (float("inf"), float("-inf")):
        return value
    if float in kinds and type(value) is int and abs(value) < 1e300:
        return float(value)
    expected = " or ".join(_NAMES[kind] for kind in kinds)
    raise PackError(f"{where} is {value!r:.60}, expected {expected}")


def _table(path: str, value: Any) -> str:
    """A table and the tables in it, each under its own header."""
    entries = _entries(value)
    plain = {key: one for key, one in entries.items() if not _is_table(one)}
    lines = [f"\n[{path}]"] if path and (plain or not entries) else []
    lines += [f"{_key(key)} = {_inline(one, _join(path, key))}" for key, one in plain.items()]
    text = "".join(line + "\n" for line in lines)
    return text + "".join(_table(_join(path, _key(key)), entries[key]) for key in entries if key not in plain)


def _inline(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(float(value) if isinstance(value, float) else int(value))
    if isinstance(value, tuple | list):
        items = [_inline(one, where) for one in value]
        if value and _is_table(value[0]):
            return "[\n" + "".join(f"  {item},\n" for item in items) + "]"
        return f"[{', '.join(items)}]"
    if _is_table(value):
        return f"{{ {', '.join(f'{_key(k)} = {_inline(v, where)}' for k, v in _entries(value).items())} }}"
    raise PackError(f"{where} is {value!r:.60}, which TOML cannot hold")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or dataclasses.is_dataclass(value)


def _entries(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {name: getattr(value, name) for name in _fields(value)}


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _inline(key, "key")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
