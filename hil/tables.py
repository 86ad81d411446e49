"""TOML tables to frozen dataclasses: the dataclass is the schema.

Unknown, missing and wrongly typed keys are errors that name file, table and key. A field whose type
is another dataclass is a sub-table; `tuple[Dataclass, ...]` is an array of tables; `tuple[str,
...]` an array; `X | None` may be left out. Used for board files, lab.toml and study files.
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from hil.errors import BoardFileError

T = TypeVar("T")

_TOML_NAMES = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


def read_toml(path: Path) -> dict[str, Any]:
    """The parsed file; raises BoardFileError with line and column when it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BoardFileError(path, "", f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BoardFileError(path, "", f"is not valid TOML: {error}") from None


def table_to_dataclass(cls: type[T], values: Any, path: Path, table: str = "") -> T:
    """One TOML table as an instance of the dataclass `cls`; raises BoardFileError."""
    if not isinstance(values, dict):
        raise BoardFileError(path, table, f"should be a table, found {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            known = ", ".join(fields)
            raise BoardFileError(path, table, f"unknown key {key!r}; known keys are {known}")
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], path, table, name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise BoardFileError(path, table, f"missing key {name!r}")
    try:
        return cls(**arguments)
    except ValueError as error:  # raised by __post_init__: a value that no board can have
        raise BoardFileError(path, table, str(error)) from None


def _convert(hint: Any, value: Any, path: Path, table: str, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        hint = next(a for a in args if a is not type(None))
        return _convert(hint, value, path, table, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise BoardFileError(path, table, f"key {key!r} should be an array, found {value!r}")
        return tuple(_convert(args[0], item, path, table, key) for item in value)
    if origin is typing.Literal:
        if value not in args:
            known = ", ".join(repr(a) for a in args)
            raise BoardFileError(path, table, f"key {key!r} is {value!r}; known values are {known}")
        return value
    if origin is dict:
        if not isinstance(value, dict):
            raise BoardFileError(path, table, f"key {key!r} should be a table, found {value!r}")
        return {
            k: _convert(args[1], v, path, f"{table}.{key}" if table else key, k)
            for k, v in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return table_to_dataclass(
            typing.cast("type[Any]", hint), value, path, f"{table}.{key}" if table else key
        )
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise BoardFileError(
            path, table, f"key {key!r} should be {_TOML_NAMES[hint]}, found {value!r}"
        )
    return value
