"""What is known of each type: fields, items, merge keys, list types; in compact nodes that load when first looked at.

Owns: Schema, built from the OpenAPI definitions of built-in kinds or from the structural schema of a CRD.
Called by: decode, prune, the patches, managed_fields, apiserver. Never does: hold descriptions (they are read again when asked).
Nodes of definitions are shared and immutable once loaded; recursive types are cycles of nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k1s.api import definitions
from k1s.api.catalog import Resource

Json = dict[str, Any]

_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_RAW_EXTENSION = "io.k8s.apimachinery.pkg.runtime.RawExtension"
# Typed "object" in the file, yet anything goes in them.
_FREE_FORM = {_RAW_EXTENSION, f"{definitions.META_V1}.FieldsV1", f"{definitions.META_V1}.Patch"}
# OpenAPI carries no defaults, but the key of a list item needs these two when a manifest leaves them out.
_KEY_DEFAULTS = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
}
_EMPTY: Mapping[str, Any] = {}


class Schema:
    """One type. `type`: object, array, string, integer, number, boolean, int-or-string, quantity or any."""

    type: str
    format: str
    properties: Mapping[str, Schema]
    items: Schema | None
    values: Schema | None
    required: tuple[str, ...]
    enum: tuple[Any, ...]
    patch_strategy: str
    patch_merge_key: str
    list_type: str
    list_map_keys: tuple[str, ...]
    map_type: str
    preserve_unknown: bool
    embedded: bool
    nullable: bool
    default: Any
    builtin: bool
    name: str

    __slots__ = (
        "_overrides",
        "builtin",
        "default",
        "embedded",
        "enum",
        "format",
        "items",
        "list_map_keys",
        "list_type",
        "map_type",
        "name",
        "nullable",
        "patch_merge_key",
        "patch_strategy",
        "preserve_unknown",
        "properties",
        "required",
        "type",
        "values",
    )

    def __init__(self, name: str = "", overrides: Json | None = None) -> None:
        # A node of a definition knows only its name until someone looks at it: see __getattr__.
        self.name = name
        self._overrides = overrides

    def __getattr__(self, attribute: str) -> Any:
        # Reached only while a slot is unset, that is, before the definition was read.
        if attribute.startswith("__") or not self.name:
            raise AttributeError(attribute)
        if self._overrides is None:
            _fill(self, definitions.definition(self.name), self.name)
        else:
            shared = _definition_node(self.name)
            for slot in _FILLED:
                setattr(self, slot, getattr(shared, slot))
            _annotate(self, {**_annotations(shared), **self._overrides})
        return getattr(self, attribute)

    @property
    def short_name(self) -> str:
        """`DeploymentSpec`; empty for types without a name."""
        return self.name.rpartition(".")[2]

    @property
    def is_map(self) -> bool:
        """Keys are data, not fields."""
        return self.type == "object" and self.values is not None

    @property
    def is_struct(self) -> bool:
        return self.type == "object" and self.values is None

    def child(self, field: str) -> Schema | None:
        """The type of a field or map value; None if it is unknown."""
        found = self.properties.get(field)
        return found if found is not None else self.values

    def description(self, field: str = "") -> str:
        """Of the type, or of one of its fields. Read from the file each time; empty for types without a name."""
        if not self.name:
            return ""
        raw = definitions.definition(self.name)
        if field:
            raw = raw.get("properties", {}).get(field, {})
        return str(raw.get("description", ""))

    def __repr__(self) -> str:
        return f"Schema({self.name or self.type})"


_FILLED = (
    "type",
    "format",
    "properties",
    "items",
    "values",
    "required",
    "enum",
    "preserve_unknown",
    "embedded",
    "nullable",
    "default",
    "builtin",
)


def _annotations(schema: Schema) -> Json:
    return {
        "x-kubernetes-patch-strategy": schema.patch_strategy,
        "x-kubernetes-patch-merge-key": schema.patch_merge_key,
        "x-kubernetes-list-type": schema.list_type,
        "x-kubernetes-list-map-keys": schema.list_map_keys,
        "x-kubernetes-map-type": schema.map_type,
    }


def _annotate(node: Schema, raw: Json) -> None:
    node.patch_strategy = raw.get("x-kubernetes-patch-strategy", "")
    node.patch_merge_key = raw.get("x-kubernetes-patch-merge-key", "")
    node.list_type = raw.get("x-kubernetes-list-type", "")
    node.list_map_keys = tuple(raw.get("x-kubernetes-list-map-keys", ()))
    node.map_type = raw.get("x-kubernetes-map-type", "")


def _plain(type: str, format: str = "", builtin: bool = True) -> Schema:
    node = Schema()
    _blank(node, type, format, builtin)
    _annotate(node, {})
    return node


def _blank(node: Schema, type: str, format: str, builtin: bool) -> None:
    node.type, node.format, node.builtin = type, format, builtin
    node.properties, node.items, node.values = _EMPTY, None, None
    node.required, node.enum, node.default = (), (), None
    node.preserve_unknown = type == "any"
    node.embedded = node.nullable = False


ANY = _plain("any")
_STRING = _plain("string")

# Bounded by the definitions in the file, and by the handful of scalar types.
_nodes: dict[str, Schema] = {}
_scalars: dict[tuple[str, str], Schema] = {("string", ""): _STRING}
# Bounded by the CRDs that are installed: the apiserver registers and forgets them.
_custom: dict[tuple[str, str, str], Schema] = {}


def _definition_node(name: str) -> Schema:
    node = _nodes.get(name)
    if node is None:
        if not definitions.exists(name):
            raise KeyError(name)
        node = _nodes[name] = Schema(name)
    return node


def _type_of(raw: Json) -> str:
    declared = raw.get("type", "")
    if isinstance(declared, list):
        declared = next((t for t in declared if t != "null"), "")
    if raw.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    if not declared:
        return "object" if "properties" in raw or "additionalProperties" in raw else "any"
    return str(declared)


def _fill(node: Schema, raw: Json, name: str) -> None:
    """Load a node of a definition, or an unnamed one inside of it."""
    if name == _QUANTITY:
        _blank(node, "quantity", "", True)
    elif name == _INT_OR_STRING:
        _blank(node, "int-or-string", "", True)
    else:
        _blank(node, _type_of(raw), raw.get("format", ""), True)
    if name in _FREE_FORM:
        node.values, node.preserve_unknown = ANY, True
    node.required = tuple(raw.get("required", ()))
    if "properties" in raw:
        node.properties = {field: _field(name, field, child) for field, child in raw["properties"].items()}
    if isinstance(raw.get("additionalProperties"), dict):
        node.values = _build(raw["additionalProperties"])
    if "items" in raw:
        node.items = _build(raw["items"])
    _annotate(node, raw)


def _field(owner: str, field: str, raw: Json) -> Schema:
    default = _KEY_DEFAULTS.get((owner, field))
    if default is None:
        return _build(raw)
    node = _plain(_type_of(raw), raw.get("format", ""))
    node.default = default
    return node


def _build(raw: Json) -> Schema:
    if "$ref" in raw:
        name = definitions.ref_target(raw["$ref"])
        overrides = {key: value for key, value in raw.items() if key.startswith("x-kubernetes-")}
        return Schema(name, overrides) if overrides else _definition_node(name)
    type = _type_of(raw)
    if type not in ("object", "array"):
        key = (type, raw.get("format", ""))
        node = _scalars.get(key)
        if node is None:
            node = _scalars[key] = _plain(*key)
        return node
    node = Schema()
    _fill(node, raw, "")
    return node


def schema_of(name: str) -> Schema:
    """The type of a definition by its full name. KeyError if there is none."""
    return _definition_node(name)


def schema_for_kind(group: str, version: str, kind: str) -> Schema:
    """The type of a kind, built in or registered. KeyError if there is none."""
    custom = _custom.get((group, version, kind))
    return custom if custom is not None else _definition_node(definitions.definition_name(group, version, kind))


def schema_for(resource: Resource) -> Schema:
    """The type of a resource's objects; for a custom resource what register_custom() was given."""
    if resource.custom:
        found = _custom.get((resource.group, resource.version, resource.kind))
        return found if found is not None else UNTYPED_OBJECT
    return schema_for_kind(resource.group, resource.version, resource.kind)


def register_custom(group: str, version: str, kind: str, schema: Schema) -> None:
    _custom[group, version, kind] = schema


def forget_custom(group: str, version: str, kind: str) -> None:
    _custom.pop((group, version, kind), None)


def structural(raw: Json | None, root: bool = True) -> Schema:
    """The type that a CRD's openAPIV3Schema describes. At the root and in embedded resources, metadata is ObjectMeta."""
    raw = raw or {}
    type = _type_of(raw)
    if type == "any" and (root or raw.get("x-kubernetes-embedded-resource")):
        type = "object"
    node = Schema()
    _blank(node, type, raw.get("format", ""), False)
    _annotate(node, raw)
    node.required = tuple(raw.get("required", ()))
    node.enum = tuple(raw.get("enum", ()))
    node.default, node.nullable = raw.get("default"), bool(raw.get("nullable"))
    node.embedded = bool(raw.get("x-kubernetes-embedded-resource"))
    node.preserve_unknown = bool(raw.get("x-kubernetes-preserve-unknown-fields"))
    properties = {field: structural(child, False) for field, child in (raw.get("properties") or {}).items()}
    if root or node.embedded:
        properties |= {"apiVersion": _STRING, "kind": _STRING, "metadata": _OBJECT_META}
    node.properties = properties
    additional = raw.get("additionalProperties")
    if isinstance(additional, dict):
        node.values = structural(additional, False)
    elif additional is True:
        node.values = ANY
    if isinstance(raw.get("items"), dict):
        node.items = structural(raw["items"], False)
    return node


_OBJECT_META = Schema(definitions.OBJECT_META, {})
# What a custom resource without a schema is: metadata, and whatever else it likes.
UNTYPED_OBJECT = structural({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
