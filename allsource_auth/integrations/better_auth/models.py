"""Models as kinds: what the framework calls a model with fields is a kind with attributes here.

The models that the framework and its plugins share with the library (`SHARED`) are the library's own kinds, with one more
attribute for each field that these lack; any other model becomes a kind of its own. A unique field becomes a claim, a
reference a list, and one that deletes with its parent makes the parent the owner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from keyword import iskeyword
from math import isfinite
from typing import Any, TypeAlias, cast

import msgspec
from better_auth.schema import Field

from allsource_auth import values
from allsource_auth.entities import Entity, Instant
from allsource_auth.errors import InvalidInput, NotFound
from allsource_auth.ids import uuid_text
from allsource_auth.kinds import (
    ACCOUNT,
    API_KEY,
    INVITATION,
    KINDS,
    MEMBER,
    ORGANIZATION,
    PASSKEY,
    SESSION,
    TWO_FACTOR,
    USER,
    VERIFICATION,
    Check,
    Index,
    Kind,
    Unique,
)

__all__ = ["Column", "Table", "tables"]

SHARED: Mapping[str, Kind[Any]] = {
    "user": USER,
    "session": SESSION,
    "account": ACCOUNT,
    "verification": VERIFICATION,
    "organization": ORGANIZATION,
    "member": MEMBER,
    "invitation": INVITATION,
    "twoFactor": TWO_FACTOR,
    "apikey": API_KEY,
    "passkey": PASSKEY,
}
"""The models that both sides have."""

ALIASES = {"apikey": {"referenceId": "user_id"}}
"""Fields whose attribute has another name. An API key's ``referenceId`` is its user's id (or, if so configured, that of an
organization)."""

LOOKED_UP: Mapping[str, Collection[str]] = {"walletAddress": ("address",)}
"""Fields by which the framework's plugins look rows up at every sign-in, as if its schema had an index on them."""

STAMPS = ("created_at", "updated_at")

RESERVED = frozenset({"index", "store", "sweep"})
"""Names of kinds that would mix their streams or types with those of the store itself."""

ID = "id"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _boolean(name: str, value: object) -> bool:
    """A flag; 0 and 1 count as one, as they do in the databases that have no other."""
    return values.boolean(name, bool(value) if isinstance(value, int) and value in (0, 1) else value)


def _number(name: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(name, f"must be a number, not {type(value).__name__}")
    if not isfinite(value) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise InvalidInput(name, "must be finite and fit 64 bits")
    return value


def _array(name: str, value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise InvalidInput(name, f"must be a list, not {type(value).__name__}")
    found: list[Any] = values.json_value(name, cast("object", value))
    return found


OptionalInstant: TypeAlias = Instant | None

STORED: Mapping[str, tuple[Any, Check]] = {
    "string": (str | None, values.text),
    "text": (str | None, values.text),
    "number": (int | float | None, _number),
    "boolean": (bool | None, _boolean),
    "datetime": (OptionalInstant, values.instant),
    "json": (Any, values.json_value),
    "string[]": (list[str] | None, _array),
    "number[]": (list[int | float] | None, _array),
}
"""By the type of a field: what its attribute holds, and what it accepts."""

TEXTS = ("string", "text")


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a model, and the attribute of the entity that has its value.

    ``stored`` brings a value of the framework to that of the attribute, ``shown`` the other way; ``None``: they are the same.
    ``default`` takes the place of a null where the attribute cannot be null.
    """

    field: str
    attribute: str
    type: str
    required: bool = False
    default: Any = None
    stored: Callable[[str, Any], Any] | None = None
    shown: Callable[[Any], Any] | None = None

    def take(self, value: Any) -> Any:
        """A value of the framework as the attribute has it. Raises `InvalidInput`."""
        if value is None:
            return self.default
        return value if self.stored is None else self.stored(self.field, value)


@dataclass(frozen=True)
class Table:
    """A model: its kind, and its columns by the names of the fields.

    ``indexed``: attributes with a list for no other reason than an index. Many rows may share a value of these, a role, say; so
    a list by a reference is the shorter way.
    """

    model: str
    kind: Kind[Any]
    columns: Mapping[str, Column]
    indexed: Collection[str]
    _shown: tuple[tuple[str, str, Callable[[Any], Any] | None], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shown = tuple((column.field, column.attribute, column.shown) for column in self.columns.values())
        object.__setattr__(self, "_shown", shown)

    def column(self, name: str) -> Column:
        """The column of a field. Raises `InvalidInput` for one that the schema does not have."""
        found = self.columns.get(name)
        if found is None:
            raise InvalidInput(name, f"the model {self.model!r} has no such field")
        return found

    def row(self, entity: Entity) -> dict[str, Any]:
        """An entity as the framework knows it: every field of the schema, ``None`` where it has no value."""
        found: dict[str, Any] = {}
        for name, attribute, shown in self._shown:
            value = getattr(entity, attribute)
            found[name] = value if shown is None or value is None else shown(value)
        return found

    def new(self, row: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """The key and the attributes of a new entity; the key is ``None`` where none was given. Raises `InvalidInput`."""
        for column in self.columns.values():
            if column.required and row.get(column.field) is None and column.attribute not in (*STAMPS, self.kind.key):
                raise InvalidInput(column.field, f"a {self.model} must have one")
        given = {column.attribute: column.take(value) for column, value in self._pairs(row)}
        if given.get("created_at", 0) is None:
            del given["created_at"]  # an entity always has one
        if "updatedAt" in self.columns and not self.columns["updatedAt"].required:
            given.setdefault("updated_at", None)
        if self.kind.key != ID and given.get(ID) is None:
            given[ID] = uuid_text()
        return given.pop(self.kind.key, None), given

    def changes(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes that an update sets. Raises `InvalidInput`."""
        found: dict[str, Any] = {}
        for column, value in self._pairs(row):
            if value is None and column.required:
                raise InvalidInput(column.field, f"a {self.model} must have one")
            found[column.attribute] = column.take(value)
        return found

    def _pairs(self, row: Mapping[str, Any]) -> Iterable[tuple[Column, Any]]:
        return ((self.column(name), value) for name, value in row.items())


def tables(
    schema: Mapping[str, Mapping[str, Field]],
    declared: Mapping[str, Kind[Any]],
    indexes: Mapping[str, Collection[str]],
) -> dict[str, Table]:
    """The tables of a schema, on top of the kinds that were ``declared`` before; ``lists``: further fields that are looked up.

    Raises `InvalidInput` naming the model or the field that cannot be kept.
    """
    for model, names in indexes.items():
        for name in names:
            if name not in schema.get(model, {}):
                raise InvalidInput("lists", f"the schema has no field {name!r} of a model {model!r}")
    names = {model: _kind_name(model) for model in schema}
    taken: dict[str, str] = {}
    for model, name in names.items():
        if (other := taken.setdefault(name, model)) != model:
            raise InvalidInput(model, f"cannot be told from the model {other!r}: the events of both would be {name!r}")
    referenced = {
        (field.references.model, field.references.field)
        for fields in schema.values()
        for field in fields.values()
        if field.references is not None
    }
    found: dict[str, Table] = {}
    for model, fields in schema.items():
        base = declared.get(names[model]) or SHARED.get(model) or _new_kind(model, names[model])
        builder = _Builder(model, base, names, fields)
        for name, spec in fields.items():
            builder.add(name, spec, index=name in indexes.get(model, ()), sought=(model, name) in referenced)
        found[model] = builder.table()
    return found


def _kind_name(model: str) -> str:
    shared = SHARED.get(model)
    if shared is not None:
        return shared.name
    if not _NAME.fullmatch(model):
        raise InvalidInput(model, "the name of a model must be letters, digits and '_', a letter first")
    name = _snake(model)
    if name in RESERVED or any(name == kind.name or kind.prefix == f"auth-{name}:" for kind in KINDS):
        raise InvalidInput(model, f"cannot be the name of a model: the store has events of its own called {name!r}")
    return name


def _snake(name: str) -> str:
    return _WORDS.sub("_", name).lower()


def _new_kind(model: str, name: str) -> Kind[Any]:
    entity = _struct(model[0].upper() + model[1:], [], Entity)
    missing = type(f"{entity.__name__}NotFound", (NotFound,), {"kind": name, "__module__": __name__})
    return Kind(name=name, entity=entity, prefix=f"auth-{name}:", not_found=missing, checks={})


def _struct(name: str, fields: list[tuple[str, Any, Any]], base: type[Entity]) -> type[Entity]:
    found: Any = msgspec.defstruct(name, fields, bases=(base,), frozen=True, kw_only=True, module=__name__)
    found.__doc__ = base.__doc__
    entity: type[Entity] = found
    return entity


def _comparable(value: Any) -> str:
    """A value as it is compared in claims and lists: numbers that are equal read the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


class _Builder:
    """Adds the fields of one model to a kind."""

    def __init__(self, model: str, base: Kind[Any], names: Mapping[str, str], fields: Collection[str]) -> None:
        self._model, self._base, self._names = model, base, names
        self._own = model not in SHARED
        self._columns = {ID: Column(ID, ID, "string", required=True)}
        self._fields: list[tuple[str, Any, Any]] = []
        self._checks: dict[str, Check] = {}
        self._unique = list(base.unique)
        self._indexes = list(base.indexes)
        self._indexed: set[str] = set()
        self._secrets = set(base.secrets)
        self._attributes = {wire: attribute for attribute, wire in base.codec.names.items()}
        for name, attribute in ALIASES.get(model, {}).items():
            if base.codec.names[attribute] not in fields:
                self._attributes[name] = attribute
        self._types = {found.name: found for found in msgspec.structs.fields(base.entity)}

    def add(self, name: str, spec: Field, *, index: bool, sought: bool) -> None:
        """Add a field: ``listed``: entities are looked up by it; ``sought``: other models refer to it."""
        if spec.type not in STORED:
            raise InvalidInput(f"{self._model}.{name}", f"there is no type {spec.type!r} of fields")
        if name == "_deleted":
            raise InvalidInput(f"{self._model}.{name}", "cannot be the name of a field: tombstones have it")
        attribute = self._attributes.get(name)
        if attribute is None:
            attribute = self._new_attribute(name, spec)
        if attribute in STAMPS and spec.type != "datetime":
            raise InvalidInput(f"{self._model}.{name}", "must be of the type 'datetime'")
        self._columns[name] = self._column(name, attribute, spec)
        if attribute == self._base.key:
            return
        single = (attribute,)
        if (spec.unique and attribute != ID) or (attribute == ID and sought):
            if all(unique.attributes != single for unique in self._unique):
                self._unique.append(Unique(attribute, single, normalize=_comparable))
        elif spec.references is not None or index:
            self._list(name, attribute, spec)
        elif self._own and spec.type in TEXTS and (spec.index or name in LOOKED_UP.get(self._model, ())):
            self._list(name, attribute, spec)
            self._indexed.add(attribute)

    def _new_attribute(self, name: str, spec: Field) -> str:
        attribute = re.sub(r"\W", "_", _snake(name)).lstrip("_")
        if not attribute[:1].isalpha():
            attribute = f"field_{attribute}"
        known = {found for found, _, _ in self._fields}
        while iskeyword(attribute) or attribute in known or hasattr(self._base.entity, attribute):
            attribute += "_"
        type_, check = STORED[spec.type]
        self._fields.append((attribute, type_, msgspec.field(name=name, default=None)))
        self._checks[attribute] = check
        # Of the library's own kinds what the framework hides; of others, all text that does not say whose it is.
        hidden = spec.type not in ("number", "boolean", "datetime") and spec.references is None
        if (self._own and hidden) or not spec.returned:
            self._secrets.add(attribute)
        return attribute

    def _column(self, name: str, attribute: str, spec: Field) -> Column:
        known = self._types.get(attribute)
        default = None
        if known is not None and known.default not in (None, msgspec.NODEFAULT):
            default = known.default
        stored = PREPARED.get(spec.type)
        shown: Callable[[Any], Any] | None = None
        if known is not None and "dict" in str(known.type) and spec.type in TEXTS:
            stored, shown = _object_of_text, _text_of_object
        return Column(name, attribute, spec.type, spec.required, default, stored, shown)

    def _list(self, name: str, attribute: str, spec: Field) -> None:
        if any(found.attribute == attribute for found in self._indexes):
            return
        if any(unique.attributes == (attribute,) for unique in self._unique):
            return
        if spec.type not in TEXTS:
            if spec.references is None:
                raise InvalidInput(
                    "lists", f"{self._model}.{name} is no text, and only text can be looked up in a list"
                )
            return
        owner, reference = None, spec.references
        if reference is not None and (reference.on_delete or "").lower() == "cascade":
            parent = SHARED.get(reference.model)
            key = ID if parent is None else parent.key
            # What is deleted with a parent is found by the parent's key.
            owner = self._names.get(reference.model) if reference.field == key else None
        self._indexes.append(Index(attribute, attribute, owner=owner))

    def table(self) -> Table:
        base = self._base
        kind = base
        stamps = {name: values.instant for name in STAMPS if name in base.codec.names}
        same = not self._fields and tuple(self._unique) == base.unique and tuple(self._indexes) == base.indexes
        if not same or "created_at" not in base.checks:
            entity = base.entity
            if self._fields:
                entity = _struct(entity.__name__, self._fields, entity)
            kind = replace(
                base,
                entity=entity,
                checks={**base.checks, **stamps, **self._checks},
                unique=tuple(self._unique),
                indexes=tuple(self._indexes),
                secrets=frozenset(self._secrets),
            )
        return Table(self._model, kind, self._columns, frozenset(self._indexed))


def _of_text(name: str, value: Any) -> Any:
    """What a field of JSON holds: a text is JSON text, as for the framework's adapters of databases without JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _aware(name: str, value: Any) -> Any:
    """A time without a zone is in UTC, as for the framework's own adapters."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.utcoffset() is None else value


def _object_of_text(name: str, value: Any) -> Any:
    """The object in a JSON text, where the framework keeps the text and the library the object."""
    try:
        found = json.loads(values.text(name, value))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(name, "must be the text of a JSON object")
    return cast("dict[str, object]", found)


def _text_of_object(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


PREPARED: Mapping[str, Callable[[str, Any], Any]] = {
    "datetime": _aware,
    "json": _of_text,
    "string[]": _of_text,
    "number[]": _of_text,
}
"""By the type of a field: what is done to a value of the framework before it is checked."""
