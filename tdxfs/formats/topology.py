"""Topology files: TOML to `Topology` and back."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from enum import Enum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_origin

from attrs import NOTHING, Factory, fields, has
from cattrs import BaseValidationError, Converter, ForbiddenExtraKeysError, transform_error

from tdxfs import validate
from tdxfs.errors import UserError
from tdxfs.formats.document import Document, Ids, document
from tdxfs.formats.units import format_address, format_size, parse_size
from tdxfs.idlist import parse_list
from tdxfs.model import Topology
from tdxfs.ranges import Range

SIZES = {"size", "stride", "align", "block_size", "line", "line_size"}
ADDRESSES = {"base"}


def find(name: str) -> Topology:
    """The built-in machine `name`, or the file of that path; UserError if there is neither."""
    if name in builtin_names():
        text = resources.files("tdxfs.machines").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        return loads(text, f"{name}.toml")
    if not Path(name).exists():
        raise UserError(f"{name}: no such file, and no built-in machine ({', '.join(builtin_names())})")
    return load(Path(name))


def builtin_names() -> tuple[str, ...]:
    """Names of the machines in the package, the default first."""
    found = (file.name for file in resources.files("tdxfs.machines").iterdir())
    names = (name.removesuffix(".toml") for name in found if name.endswith(".toml"))
    return tuple(sorted(names, key=lambda name: (name != "mixed", name)))


def load(path: Path) -> Topology:
    """The topology a file describes; UserError is one line: file, key, value, rule."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start}: must be UTF-8") from error
    return loads(text, str(path))


def loads(text: str, name: str = "topology") -> Topology:
    """The same from text; `name` stands for the file in errors."""
    written: dict[str, Any] = {}
    try:
        written = tomllib.loads(text)
        topology = _converter().structure(written, Document).topology()
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name}: {error}") from error
    except BaseValidationError as error:
        raise UserError(f"{name}: {_first_line(error, written)}") from error
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error
    for problem in validate.problems(topology):
        raise UserError(f"{name}: {problem}")
    return topology


def dumps(topology: Topology) -> str:
    """A topology as the text of a file; what has its default value is left out."""
    import tomli_w

    return tomli_w.dumps(_plain(document(topology)), multiline_strings=True)


@cache
def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, lambda value, _: parse_size(value))
    converter.register_structure_hook(bool, _bool)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(Ids, _ids)
    converter.register_structure_hook(Range, lambda value, _: _range(value))
    converter.register_structure_hook_func(lambda kind: kind == tuple[int, int, int], _version)
    converter.register_structure_hook_func(lambda kind: isinstance(kind, type) and issubclass(kind, Enum), _enum)
    return converter


def _bool(value: object, _: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r}: must be true or false")
    return value


def _text(value: object, _: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r}: must be a text")
    return value


def _ids(value: object, _: Any) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError(f"{value!r}: must be a number or a range list such as '0-3'")
    parse_list(text)
    return text


def _range(value: object) -> Range:
    if not isinstance(value, Mapping) or set(value) != {"base", "size"}:
        raise ValueError(f"{value!r}: must be a table of base and size")
    base, size = parse_size(value["base"]), parse_size(value["size"])
    if base < 0 or size <= 0:
        raise ValueError(f"{value!r}: base must not be negative, size must be positive")
    return Range(base, base + size)


def _version(value: object, _: Any) -> tuple[int, int, int]:
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise ValueError(f"{value!r}: must be a version such as '1.5.05'")
    return int(parts[0]), int(parts[1]), int(parts[2])


def _enum(value: object, kind: type[Enum]) -> Enum:
    for member in kind:
        if member.value == value:
            return member
    raise ValueError(f"{value!r}: must be one of {', '.join(str(member.value) for member in kind)}")


def _first_line(error: BaseValidationError, written: dict[str, Any]) -> str:
    # the first of the problems as key: value: rule
    def describe(exception: BaseException, kind: Any) -> str:
        if isinstance(exception, ForbiddenExtraKeysError):
            known = ", ".join(field.name for field in fields(exception.cl))
            return f".{min(exception.extra_fields)}: unknown key; known are {known}"
        if isinstance(exception, KeyError):
            return ": missing: must be given"
        if isinstance(exception, ValueError):
            return f": {exception}"
        return ": {!r}: must be a list" if get_origin(kind) is tuple else ": {!r}: must be a table"

    message, _, where = transform_error(error, format_exception=describe)[0].rpartition(" @ ")
    if "{!r}" in message:
        value: Any = written
        for step in STEP.finditer(where):
            if step[2] and not isinstance(value, list):
                where, message = where[: step.start()], ": {!r}: must be a list"
                break
            value = value[int(step[2]) if step[2] else step[1] or step[3]]
        message = message.format(value)
    key = STEP.sub(lambda step: f"[{step[2]}]" if step[2] else f".{step[1] or step[3]}", where.removeprefix("$"))
    return f"{key}{message}".removeprefix(".")


STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\['([^']*)'\]")
"""One step of the path that cattrs gives of a value: an attribute, an index or the key of a mapping."""


def _plain(value: Any, key: str = "") -> Any:
    # what TOML can hold, without what is at its default
    if has(type(value)):
        if isinstance(value, Range):
            return {"base": format_address(value.start), "size": format_size(value.size)}
        return {
            field.name: _plain(getattr(value, field.name), field.name)
            for field in fields(type(value))
            if getattr(value, field.name) is not None and getattr(value, field.name) != _default(field)
        }
    if isinstance(value, Enum):
        return value.value
    if key.endswith("_version"):
        return "{}.{}.{:02}".format(*value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if key in SIZES and isinstance(value, int):
        return format_size(value)
    return format_address(value) if key in ADDRESSES else value


def _default(field: Any) -> Any:
    if isinstance(field.default, Factory):  # type: ignore[arg-type]
        return field.default.factory()
    return field.default if field.default is not NOTHING else object()
