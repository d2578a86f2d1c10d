"""Conversion of the framework's models to kinds.

* A model becomes a kind, its fields become attributes.
* Models that the framework and its plugins share with the library (`SHARED`) use the library's kinds, extended by one attribute
  for each additional field. Any other model becomes a new kind.
* A unique field becomes a unique value with claims.
* A reference becomes an index. With ``on_delete="cascade"`` the referenced kind becomes the owner.
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
from allsource_auth.kind import Check, Index, Kind, Unique
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
"""Models that exist in both the framework and the library."""

ALIASES = {"apikey": {"referenceId": "user_id"}}
"""Fields whose attribute has another name. The ``referenceId`` of an API key is the id of its user or, if configured so, of an
organization."""

INDEXED_FIELDS: Mapping[str, Collection[str]] = {"walletAddress": ("address",)}
"""Additional fields to index: plugins query them at every sign-in, but their schema has no index on them."""

TIMESTAMPS = ("created_at", "updated_at")

RESERVED = frozenset({"index", "store", "sweep"})
"""Names of kinds whose streams or event types would collide with those of the library."""

ID = "id"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def _boolean(name: str, value: object) -> bool:
    """Check a flag. 0 and 1 are accepted, as in databases without booleans."""
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

FIELD_TYPES: Mapping[str, tuple[Any, Check]] = {
    "string": (str | None, values.text),
    "text": (str | None, values.text),
    "number": (int | float | None, _number),
    "boolean": (bool | None, _boolean),
    "datetime": (OptionalInstant, values.instant),
    "json": (Any, values.json_value),
    "string[]": (list[str] | None, _array),
    "number[]": (list[int | float] | None, _array),
}
"""By the type of a field: the type of its attribute, and the check of its values."""

TEXT_TYPES = ("string", "text")


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a model, and the attribute of the entity that holds its value.

    ``to_attribute`` converts a value of the framework to a value of the attribute, ``to_row`` converts it back. ``None`` means
    that the values are equal. ``default`` replaces a null if the attribute cannot be null.
    """

    field: str
    attribute: str
    type: str
    required: bool = False
    default: Any = None
    to_attribute: Callable[[str, Any], Any] | None = None
    to_row: Callable[[Any], Any] | None = None

    def convert(self, value: Any) -> Any:
        """Convert a value of the framework to a value of the attribute. Raises `InvalidInput` if it is invalid."""
        if value is None:
            return self.default
        return value if self.to_attribute is None else self.to_attribute(self.field, value)


@dataclass(frozen=True)
class Table:
    """A model: its kind, and its columns by field name.

    ``indexed`` has the indexed attributes that are not references. Queries use them last, because many rows may share a value,
    such as a role.
    """

    model: str
    kind: Kind[Any]
    columns: Mapping[str, Column]
    indexed: Collection[str]
    _row_columns: tuple[tuple[str, str, Callable[[Any], Any] | None], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        row_columns = tuple((column.field, column.attribute, column.to_row) for column in self.columns.values())
        object.__setattr__(self, "_row_columns", row_columns)

    def column(self, name: str) -> Column:
        """Return the column of a field. Raises `InvalidInput` if the schema does not have the field."""
        found = self.columns.get(name)
        if found is None:
            raise InvalidInput(name, f"is not a field of the model {self.model!r}")
        return found

    def row(self, entity: Entity) -> dict[str, Any]:
        """Return an entity as a row of the framework: all fields of the schema, ``None`` for those without a value."""
        found: dict[str, Any] = {}
        for name, attribute, to_row in self._row_columns:
            value = getattr(entity, attribute)
            found[name] = value if to_row is None or value is None else to_row(value)
        return found

    def new(self, row: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Return the key and the attributes of a new entity. The key is ``None`` if the row has none.

        Raises `InvalidInput` for an unknown or invalid field and for a missing required field.
        """
        for column in self.columns.values():
            if (
                column.required
                and row.get(column.field) is None
                and column.attribute not in (*TIMESTAMPS, self.kind.key)
            ):
                raise InvalidInput(column.field, f"a {self.model} must have one")
        given = {column.attribute: column.convert(value) for column, value in self._pairs(row)}
        if given.get("created_at", 0) is None:
            del given["created_at"]  # a null would replace the time of creation, which every entity has
        if "updatedAt" in self.columns and not self.columns["updatedAt"].required:
            given.setdefault("updated_at", None)
        if self.kind.key != ID and given.get(ID) is None:
            given[ID] = uuid_text()
        return given.pop(self.kind.key, None), given

    def changes(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes that an update sets. Raises `InvalidInput` for an unknown or invalid field."""
        found: dict[str, Any] = {}
        for column, value in self._pairs(row):
            if value is None and column.required:
                raise InvalidInput(column.field, f"a {self.model} must have one")
            found[column.attribute] = column.convert(value)
        return found

    def _pairs(self, row: Mapping[str, Any]) -> Iterable[tuple[Column, Any]]:
        return ((self.column(name), value) for name, value in row.items())


def tables(
    schema: Mapping[str, Mapping[str, Field]],
    declared: Mapping[str, Kind[Any]],
    indexes: Mapping[str, Collection[str]],
) -> dict[str, Table]:
    """Return the tables of a schema, by model.

    Args:
        schema: the merged schema of the framework and its plugins.
        declared: the kinds that are declared already, by name; they are extended.
        indexes: additional fields to index, by model.

    Raises `InvalidInput` naming a model or field that is not supported.
    """
    for model, names in indexes.items():
        for name in names:
            if name not in schema.get(model, {}):
                raise InvalidInput("indexes", f"the schema has no field {name!r} of a model {model!r}")
    names = {model: _kind_name(model) for model in schema}
    taken: dict[str, str] = {}
    for model, name in names.items():
        if (other := taken.setdefault(name, model)) != model:
            raise InvalidInput(model, f"collides with the model {other!r}: the events of both would be called {name!r}")
    referenced = {
        (field.references.model, field.references.field)
        for fields in schema.values()
        for field in fields.values()
        if field.references is not None
    }
    found: dict[str, Table] = {}
    for model, fields in schema.items():
        base = declared.get(names[model]) or SHARED.get(model) or _new_kind(model, names[model])
        builder = _TableBuilder(model, base, names, fields)
        for name, spec in fields.items():
            builder.add(name, spec, index=name in indexes.get(model, ()), referenced=(model, name) in referenced)
        found[model] = builder.table()
    return found


def _kind_name(model: str) -> str:
    shared = SHARED.get(model)
    if shared is not None:
        return shared.name
    if not _NAME.fullmatch(model):
        raise InvalidInput(model, "must start with a letter and contain only letters, digits and '_'")
    name = _snake(model)
    if name in RESERVED or any(name == kind.name or kind.prefix == f"auth-{name}:" for kind in KINDS):
        raise InvalidInput(model, f"cannot be the name of a model: {name!r} is reserved for events of the library")
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
    """Return the text of a value in claims and indexes. Equal numbers have equal texts."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


class _TableBuilder:
    """Builds the table of one model by adding its fields to a kind."""

    def __init__(self, model: str, base: Kind[Any], names: Mapping[str, str], fields: Collection[str]) -> None:
        self._model, self._base, self._names = model, base, names
        self._is_new_kind = model not in SHARED
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

    def add(self, name: str, spec: Field, *, index: bool, referenced: bool) -> None:
        """Add a field.

        Args:
            name: its name.
            spec: its declaration in the schema.
            index: whether the application asked for an index.
            referenced: whether another model refers to it.
        """
        if spec.type not in FIELD_TYPES:
            raise InvalidInput(f"{self._model}.{name}", f"has the unknown type {spec.type!r}")
        if name == "_deleted":
            raise InvalidInput(f"{self._model}.{name}", "cannot be the name of a field: it marks tombstones")
        attribute = self._attributes.get(name)
        if attribute is None:
            attribute = self._new_attribute(name, spec)
        if attribute in TIMESTAMPS and spec.type != "datetime":
            raise InvalidInput(f"{self._model}.{name}", "must be of the type 'datetime'")
        self._columns[name] = self._column(name, attribute, spec)
        if attribute == self._base.key:
            return
        single = (attribute,)
        if (spec.unique and attribute != ID) or (attribute == ID and referenced):
            if all(unique.attributes != single for unique in self._unique):
                self._unique.append(Unique(attribute, single, normalize=_comparable))
        elif spec.references is not None or index:
            self._add_index(name, attribute, spec)
        elif (
            self._is_new_kind
            and spec.type in TEXT_TYPES
            and (spec.index or name in INDEXED_FIELDS.get(self._model, ()))
        ):
            self._add_index(name, attribute, spec)
            self._indexed.add(attribute)

    def _new_attribute(self, name: str, spec: Field) -> str:
        attribute = re.sub(r"\W", "_", _snake(name)).lstrip("_")
        if not attribute[:1].isalpha():
            attribute = f"field_{attribute}"
        known = {found for found, _, _ in self._fields}
        while iskeyword(attribute) or attribute in known or hasattr(self._base.entity, attribute):
            attribute += "_"
        type_, check = FIELD_TYPES[spec.type]
        self._fields.append((attribute, type_, msgspec.field(name=name, default=None)))
        self._checks[attribute] = check
        # For the library's kinds, fields that the framework hides; for new kinds also text and JSON that is not a reference.
        hidden = spec.type not in ("number", "boolean", "datetime") and spec.references is None
        if (self._is_new_kind and hidden) or not spec.returned:
            self._secrets.add(attribute)
        return attribute

    def _column(self, name: str, attribute: str, spec: Field) -> Column:
        known = self._types.get(attribute)
        default = None
        if known is not None and known.default not in (None, msgspec.NODEFAULT):
            default = known.default
        to_attribute = CONVERSIONS.get(spec.type)
        to_row: Callable[[Any], Any] | None = None
        if known is not None and "dict" in str(known.type) and spec.type in TEXT_TYPES:
            to_attribute, to_row = _parse_object, _format_object
        return Column(name, attribute, spec.type, spec.required, default, to_attribute, to_row)

    def _add_index(self, name: str, attribute: str, spec: Field) -> None:
        if any(found.attribute == attribute for found in self._indexes):
            return
        if any(unique.attributes == (attribute,) for unique in self._unique):
            return
        if spec.type not in TEXT_TYPES:
            if spec.references is None:
                raise InvalidInput("indexes", f"{self._model}.{name} is not text; only text fields can be indexed")
            return
        owner, reference = None, spec.references
        if reference is not None and (reference.on_delete or "").lower() == "cascade":
            parent = SHARED.get(reference.model)
            key = ID if parent is None else parent.key
            # A cascade finds the children by the key of the parent, so a reference to another field has no owner.
            owner = self._names.get(reference.model) if reference.field == key else None
        self._indexes.append(Index(attribute, attribute, owner=owner))

    def table(self) -> Table:
        base = self._base
        kind = base
        timestamps = {name: values.instant for name in TIMESTAMPS if name in base.codec.names}
        same = not self._fields and tuple(self._unique) == base.unique and tuple(self._indexes) == base.indexes
        if not same or "created_at" not in base.checks:
            entity = base.entity
            if self._fields:
                entity = _struct(entity.__name__, self._fields, entity)
            kind = replace(
                base,
                entity=entity,
                checks={**base.checks, **timestamps, **self._checks},
                unique=tuple(self._unique),
                indexes=tuple(self._indexes),
                secrets=frozenset(self._secrets),
            )
        return Table(self._model, kind, self._columns, frozenset(self._indexed))


def _parse_json(name: str, value: Any) -> Any:
    """Parse a JSON text, as the framework does for databases without JSON. Other values are returned unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _aware(name: str, value: Any) -> Any:
    """Return a naive datetime as UTC, like the framework's own adapters."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.utcoffset() is None else value


def _parse_object(name: str, value: Any) -> Any:
    """Parse the JSON text of an object: the framework stores the text, the library the object."""
    try:
        found = json.loads(values.text(name, value))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(name, "must be a JSON object as text")
    return cast("dict[str, object]", found)


def _format_object(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


CONVERSIONS: Mapping[str, Callable[[str, Any], Any]] = {
    "datetime": _aware,
    "json": _parse_json,
    "string[]": _parse_json,
    "number[]": _parse_json,
}
"""By the type of a field: the conversion of a value of the framework before it is checked."""
