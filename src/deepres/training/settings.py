"""Read recipes and configurations from records, files and the command line."""

import dataclasses
import difflib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypedDict, TypeVar, Union, get_args, get_origin, get_type_hints

from deepres.models.catalog import entry
from deepres.records import Run
from deepres.runtime import untrusted
from deepres.runtime.errors import InputError
from deepres.training.config import Config
from deepres.training.recipe import Recipe, require_bounds, shown

DROPS = ("milestones", "epochs")
OF_RECIPE = "recipe."  # before a field that the configuration has under the same name
TABLE = "give a table of fields, with those of the recipe in a table `recipe`"
# Fields that older records lack, with the values that such runs had or that change nothing for them.
BEFORE = {"division": "place", "capture": True, "deterministic": True}
T = TypeVar("T")
C = TypeVar("C", bound=Config)


@contextmanager
def _named(where: str) -> Generator[None]:
    """Put `where` before the message of an `InputError` that is raised within the context."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def recipe_class(kind: type[Config]) -> type[Recipe]:
    """The class of the recipe in a class of configurations."""
    return get_type_hints(kind)["recipe"]


def from_json(record: Mapping[str, Any], where: str, kind: type[C]) -> C:
    """A configuration of class `kind` from its record. An `InputError` for a wrong field says `where`."""
    values = dict(record)
    recipe = from_values(recipe_class(kind), values.pop("recipe", {}), where)
    return dataclasses.replace(from_values(kind, values, where), recipe=recipe)


def from_values(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass `kind` from plain values. Raises `InputError` for an unknown field or a value of a wrong type."""
    hints = _fields(kind)
    for name in values:
        _require_known(name, hints, where)
    fields = {name: _convert(value, hints[name], name, where) for name, value in values.items()}
    with _named(where):
        return kind(**fields)


class _Settings(TypedDict, total=False):
    task: str
    network: str
    data: str
    recipe: dict[str, Any]


def read_settings(file: Path, kind: type[Config], others: Sequence[str] = ()) -> dict[str, Any]:
    """Fields of `kind` from a JSON or TOML file, or from the configuration that a run folder records (`--like`).

    `others` names further fields of a record, which are left out where they are no fields of `kind`. Raises
    `InputError` for a file that cannot be read, for an unknown field, and for a value that is of a wrong type or out
    of bounds.
    """
    read, where = _table(file)
    # Each field must make sense by itself.
    known = _fields(kind)
    own: dict[str, Any] = {name: value for name, value in read.items() if name in known or name not in others}
    _require_sense(kind, {name: value for name, value in own.items() if name != "recipe"}, where)
    _require_sense(recipe_class(kind), own.get("recipe", {}), where)
    return own


def told_task(file: Path) -> str | None:
    """The task of the configuration in a file or a run folder; None where a file names neither it nor a network."""
    if file.is_dir():
        return Run(file).task
    read, _ = _table(file)
    return read.get("task") or (entry(read["network"]).task if "network" in read else None)


def _table(file: Path) -> tuple[dict[str, Any], str]:
    """The table of fields in a JSON or TOML file or a run folder, and the file that it is from."""
    if file.is_dir():
        return BEFORE | Run(file).config, str(file / "config.json")
    hint = "give a JSON or TOML file or a run folder"
    read = untrusted.read(file, dict[str, Any], TABLE, hint=hint)
    untrusted.convert(read, _Settings, str(file), TABLE)
    return read, str(file)


def _fields(kind: type) -> dict[str, Any]:
    """The types of the fields of a dataclass, by name."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _require_sense(kind: type[Config] | type[Recipe], values: Mapping[str, Any], where: str) -> None:
    """Raise `InputError` for an unknown field, and for a value of a wrong type or out of bounds, each by itself."""
    hints = _fields(kind)
    for name, value in values.items():
        _require_known(name, hints, where)
        converted = _convert(value, hints[name], name, where)
        with _named(where):
            require_bounds(name, converted, kind.bounds)


def typed(changes: Mapping[str, Any], kind: type[Config]) -> dict[str, Any]:
    """`changes` of a configuration of `kind` as values of the types of its fields, each in bounds by itself.

    Raises `InputError` for an unknown field, a value of a wrong type, or one out of bounds.
    """
    own, ours = _divided(changes, kind)
    made = recipe_class(kind)
    _require_sense(kind, own, "the command line")
    _require_sense(made, ours, "the command line")
    hints = _fields(kind) | {OF_RECIPE + name: hint for name, hint in _fields(made).items()} | _only(made, kind)
    return {name: _convert(value, hints[name], name, "the command line") for name, value in changes.items()}


def _divided(changes: Mapping[str, Any], kind: type[Config]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The changes of a configuration itself, and those of its recipe.

    A name that both have is the configuration's; `recipe.NAME` is then the field of the recipe.
    """
    fields, only = _fields(kind), _only(recipe_class(kind), kind)
    del fields["recipe"]  # a table, which no value of the command line is
    both = {OF_RECIPE + name: name for name in _fields(recipe_class(kind)) if name not in only}
    for name in changes:
        _require_known(name, {**fields, **only, **both}, "the command line")
    own = {name: value for name, value in changes.items() if name in fields}
    return own, {both.get(name, name): value for name, value in changes.items() if name not in fields}


def _only(recipe: type[Recipe], kind: type[Config]) -> dict[str, Any]:
    """The types of the fields that the recipe alone has."""
    return {name: hint for name, hint in _fields(recipe).items() if name not in _fields(kind)}


def merge(settings: Mapping[str, Any], changes: Mapping[str, Any], kind: type[Config]) -> dict[str, Any]:
    """The fields `settings` of a configuration of `kind`, with `changes`; fields of the recipe go into `recipe`.

    Of a name that both have, `recipe.NAME` is the field of the recipe. A change of `iterations` scales all marks of the
    recipe that are not changed themselves. `milestones` or `epochs` imply the decay `steps`; another decay has none of
    them. Raises `InputError` for changes that contradict each other.
    """
    # Divide the changes into those of the recipe and the others.
    made = recipe_class(kind)
    own, ours = _divided(changes, kind)
    recipe = dict(settings.get("recipe", {}))
    # Scale the marks; some of them have a least number of batches.
    iterations = ours.get("iterations")
    if iterations is not None:
        batch = {name: ours[name] for name in ours if name in ("batch_size", "accumulate")}
        length = _convert(iterations, int, "iterations", "the command line")
        with _named("the command line"):
            require_bounds("iterations", length, made.bounds)
        recipe = dataclasses.asdict(from_values(made, recipe | batch, "the command line").scaled(length))
    # Make the decay and its milestones agree.
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
        from_values(made, recipe | ours, "the command line").within()
    # Put both parts together.
    return {**settings, **own, "recipe": recipe | ours}


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The fields in which the record `ours` differs from `theirs`, as lines `name: old -> new`."""
    found: list[str] = []
    for name in ours.keys() | theirs.keys():
        old, new = theirs.get(name), ours.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(new, old, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {old!r} -> {new!r}")
    return sorted(found)


def _convert(value: Any, hint: Any, name: str, where: str) -> Any:
    """`value`, which may be text from the command line, converted to the type `hint` of the field `name`."""
    # An optional field takes none.
    if get_origin(hint) in (Union, UnionType):
        if value is None or value in ("none", "null"):
            return None
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    # All other types, each in its own way.
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
