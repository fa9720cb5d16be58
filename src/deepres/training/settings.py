"""Recipes and configurations from records, files and the command line."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

from deepres.records import Run
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError
from deepres.training.config import Config
from deepres.training.recipe import Bounds, Recipe, require_bounds, shown

DROPS = ("milestones", "epochs")
TABLE = "give a table of fields, with those of the recipe in a table `recipe`"
BEFORE = {"division": "place"}  # what records of before do not tell
T = TypeVar("T")


C = TypeVar("C", bound=Config)


def recipe_of(kind: type[Config]) -> type[Recipe]:
    """The kind of recipe that a kind of configuration has."""
    return get_type_hints(kind)["recipe"]


def from_json(record: Mapping[str, Any], where: str, kind: type[C]) -> C:
    """A configuration of `kind` from its record; `where` names it in an `InputError` for a field that is wrong."""
    values = dict(record)
    recipe = build(recipe_of(kind), values.pop("recipe", {}), where)
    return dataclasses.replace(build(kind, values, where), recipe=recipe)


def build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A frozen value of `kind` from plain values, each checked against its field's type."""
    hints = _fields(kind)
    for name in values:
        _require_known(name, hints, where)
    fields = {name: _convert(value, hints[name], name, where) for name, value in values.items()}
    try:
        return kind(**fields)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


class _Settings(TypedDict, total=False):
    network: str
    data: str
    recipe: dict[str, Any]


def read_settings(file: Path, kind: type[Config], others: Sequence[str] = ()) -> dict[str, Any]:
    """Fields of `kind` from a JSON or TOML file, or from the recorded configuration of a run folder (`--like`).

    `others` are fields that a record has besides. Raises `InputError` for what cannot be read, and for a field that is
    wrong by itself, whatever the others are.
    """
    if file.is_dir():
        read, where = BEFORE | Run(file).config, str(file / "config.json")
    else:
        hint = "give a JSON or TOML file or a run folder"
        read, where = untrusted.read(file, dict[str, Any], TABLE, hint=hint), str(file)
        untrusted.convert(read, _Settings, where, TABLE)
    own: dict[str, Any] = {name: value for name, value in read.items() if name not in others}
    _require_sense(kind, {name: value for name, value in own.items() if name != "recipe"}, where)
    _require_sense(recipe_of(kind), own.get("recipe", {}), where)
    return own


def _fields(kind: type) -> dict[str, Any]:
    """The types of the fields of a dataclass, by name."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _require_sense(kind: type[Config] | type[Recipe], values: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` for values that are none of a field of `kind`, whatever the others are."""
    hints = _fields(kind)
    for name, value in values.items():
        _require_known(name, hints, where)
        _bounded(_convert(value, hints[name], name, where), name, where, kind.bounds)


def _bounded(value: Any, name: str, where: str, bounds: Bounds) -> None:
    try:
        require_bounds(name, value, bounds)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def merge(settings: Mapping[str, Any], changes: Mapping[str, Any], kind: type[Config]) -> dict[str, Any]:
    """`settings` of a configuration of `kind` with `changes` laid over it; a name of the recipe's goes into `recipe`.

    A change of `iterations` scales all marks of the recipe that are not changed as well. `milestones` or `epochs` imply
    the decay `steps`, and another decay has none. Raises `InputError` where both are changed and do not go together.
    """
    made = recipe_of(kind)
    fields = _fields(made)
    known = {**_fields(kind), **fields}
    for name in changes:
        _require_known(name, known, "the command line")
    merged = dict(settings)
    recipe = dict(merged.get("recipe", {}))
    ours = {name: value for name, value in changes.items() if name in fields}
    iterations = ours.get("iterations")
    if iterations is not None:
        batch = {name: ours[name] for name in ours if name == "batch_size"}  # some marks are a least number of batches
        length = _convert(iterations, int, "iterations", "the command line")
        _bounded(length, "iterations", "the command line", made.bounds)
        scaled = build(made, recipe | batch, "the command line").scaled(length)
        recipe = dataclasses.asdict(scaled)
    given = [name for name in DROPS if name in ours]
    steps = str(ours.get("decay", "steps" if given else recipe.get("decay", "steps"))) == "steps"
    if "decay" in ours and steps and not any(ours.get(name, recipe.get(name)) for name in DROPS):
        raise InputError(
            "the decay steps takes milestones; give the iterations, as in --set milestones=30000,60000, or epochs=30,60"
        )
    if any(ours.get(name) for name in DROPS) and not steps:
        raise InputError(f"the decay {ours['decay']} has no milestones; leave them out, or give decay=steps")
    if given:
        ours.setdefault("decay", "steps")
    if given or not steps:
        ours = dict.fromkeys(DROPS, ()) | ours
    if ours.get("milestones"):
        build(made, recipe | ours, "the command line").within()
    merged |= {name: value for name, value in changes.items() if name not in fields}
    return merged | {"recipe": recipe | ours}


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields in which two records differ, as `name: old -> new`."""
    found: list[str] = []
    for name in ours.keys() | theirs.keys():
        old, new = theirs.get(name), ours.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(new, old, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {old!r} -> {new!r}")
    return sorted(found)


def _convert(value: Any, hint: Any, name: str, where: str) -> Any:
    """`value`, perhaps text from the command line, as the type of its field."""
    if get_origin(hint) in (Union, UnionType):
        if value is None or value in ("none", "null"):
            return None
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    origin = get_origin(hint)
    expected = "one of " + ", ".join(map(str, get_args(hint))) if origin is Literal else hint.__name__
    try:
        if origin is tuple:
            parts = [part for part in value.split(",") if part] if isinstance(value, str) else value
            return tuple(_convert(part, get_args(hint)[0], name, where) for part in parts)
        if origin is Literal and value in get_args(hint):
            return value
        if hint is bool:
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if hint is int and isinstance(value, (str, int)) and not isinstance(value, bool):
            return int(value.replace("_", "")) if isinstance(value, str) else value
        if hint is float and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(hint, type) and isinstance(value, hint):
            return value
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{where}: {name} is {shown(value)}, but must be {expected}")


def _require_known(name: str, known: Mapping[str, Any], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise InputError(f"{where} has an unknown field {name!r}; {hint}")
