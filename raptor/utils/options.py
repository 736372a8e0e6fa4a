"""Typed configuration nodes: one dataclass holds default, range, unit and meaning of each key of a node.

:func:`options` makes a class the type of a node; :func:`parse` turns composed values into an instance, or names the
full key of what does not fit. A node with a ``_target_`` is a choice: such a class, or a :class:`Foreign` one.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, cast, dataclass_transform, get_args, get_origin

import pydantic
import pydantic.dataclasses
from pydantic_core import ErrorDetails

from raptor.errors import ConfigError, show
from raptor.utils.names import unknown_key
from raptor.utils.targets import Foreign, check_signature, locate

Node = TypeVar("Node")
TARGET, PARTIAL = "_target_", "_partial_"
STRICT = pydantic.ConfigDict(
    strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, defer_build=True
)


def option(
    doc: str,
    *,
    default: Any = MISSING,
    unit: str = "",
    identity: bool = True,
    open: bool = False,
    **limits: Any,
) -> Any:
    """Describe one key of a node.

    Parameters
    ----------
    doc
        Meaning in one sentence.
    default
        Value where the key is missing; without one the key is required. Lists and dicts are copied.
    unit
        Unit of a number.
    identity
        Whether another value makes another run: true if it changes what is computed.
    open
        Whether a dictionary takes any key (by ``+``).
    **limits
        ``ge``, ``gt``, ``le``, ``lt``, ``min_length`` of pydantic.
    """
    extra: Any = {"unit": unit, "identity": identity, "open": open}
    given = {} if default is MISSING else {"default": default}
    if isinstance(default, list | dict):
        given = {"default_factory": lambda: type(default)(default)}
    return pydantic.Field(description=doc, json_schema_extra=extra, **given, **limits)


@dataclass_transform(kw_only_default=True, field_specifiers=(option,))
def options(cls: type[Node]) -> type[Node]:
    """Make a class the type of a configuration node: a pydantic dataclass, strict, with keyword arguments only.

    Class attributes: ``renamed`` maps former names of keys to today's, ``refused`` names that are known from elsewhere
    to expectation and fix; ``identity_name`` is what a run's identity calls a chosen node, else the class's name.
    """
    return pydantic.dataclasses.dataclass(config=STRICT, kw_only=True)(cls)  # type: ignore[return-value]


def is_options(cls: Any) -> bool:
    """Whether a class was made by :func:`options`."""
    return isinstance(cls, type) and pydantic.dataclasses.is_pydantic_dataclass(cls)


@dataclass(frozen=True)
class Key:
    """One key of a node, as its class declares it.

    Parameters
    ----------
    name, doc, unit
        Name, meaning and unit.
    type
        Annotation, without what pydantic adds.
    default
        Default; ``dataclasses.MISSING`` where the key is required.
    identity
        Whether another value makes another run.
    open
        Whether it is a dictionary that takes any key.
    limits
        Bounds: pairs of a relation such as ``>=`` and a number.
    """

    name: str
    doc: str
    unit: str
    type: Any
    default: Any
    identity: bool
    open: bool
    limits: tuple[tuple[str, Any], ...]

    @property
    def expected(self) -> str:
        """What a valid value is, in words: ``integer >= 1``, ``true or false``, ``exact, greedy or null``."""
        first, *others = dict.fromkeys(_words(self.type))
        bounds = dict(self.limits)
        limits = "".join(f" {relation} {show(bound)}" for relation, bound in self.limits)
        if bounds.keys() == {">=", "<="}:
            limits = f" from {show(bounds['>='])} to {show(bounds['<='])}"
        return " or ".join([f"{first}{limits}", *others])


RELATIONS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "of length >="}
WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null", dict: "mapping"}


def _words(annotation: Any) -> Iterator[str]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _words(args[0])
    elif origin in (Union, types.UnionType):
        for part in args:
            yield from _words(part)
    elif origin is Literal:
        yield from map(show, args)
    elif origin in (list, tuple):
        inner = " or ".join(dict.fromkeys(_words(args[0]))) if args else "value"
        yield f"list of ({inner})" if " or " in inner else f"list of {inner}"
    elif origin is dict or annotation is dict:
        yield "mapping"
    elif annotation is Any:
        yield "any value"
    else:
        yield WORDS.get(annotation, f"a {getattr(annotation, '__name__', annotation)}")


def keys(cls: Any) -> list[Key]:
    """List the keys of a node's class, in order."""
    return [_key(name, info) for name, info in cls.__pydantic_fields__.items()]


def _key(name: str, info: pydantic.fields.FieldInfo) -> Key:
    extra: Any = info.json_schema_extra or {}
    default = MISSING if info.is_required() else info.get_default(call_default_factory=True)
    bounds = [(RELATIONS[k], getattr(m, k)) for m in info.metadata for k in RELATIONS if hasattr(m, k)]
    return Key(
        name=name,
        doc=info.description or "",
        unit=extra.get("unit", ""),
        type=info.annotation,
        default=default,
        identity=extra.get("identity", True),
        open=extra.get("open", False),
        limits=tuple(bounds),
    )


def node_classes(annotation: Any) -> list[type]:
    """Find the options classes in an annotation such as ``Loss | None``; a base class marks a choice by target."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType, Annotated) else (annotation,)
    return [part for part in parts if is_options(part) or is_choice(part)]


def is_choice(cls: Any) -> bool:
    """Whether a class stands for nodes that are chosen by ``_target_``."""
    return isinstance(cls, ChoiceMeta)


class ChoiceMeta(type):
    """Metaclass of :class:`Choice`: a :class:`Foreign` node counts as an instance of every choice."""

    def __instancecheck__(cls, instance: Any) -> bool:
        """Accept instances of subclasses; for a choice itself, foreign nodes too."""
        return super().__instancecheck__(instance) or (isinstance(instance, Foreign) and not is_options(cls))


class Choice(metaclass=ChoiceMeta):
    """Base of the nodes that are chosen by ``_target_``, such as tasks or data sets.

    A subclass without :func:`options` names the choice; those with it are what can be chosen. ``identity_name`` is what
    the identity of a run calls the node; empty takes the class's name.
    """

    identity_name: ClassVar[str] = ""


def parse(cls: type[Node], values: Any, key: str = "") -> Node:
    """Turn the values of a configuration node into an instance of its class.

    Parameters
    ----------
    cls
        Made by :func:`options`, or the base of a choice.
    values
        Plain values: what the composed configuration has at the node.
    key
        Full name of the node; empty for the root.

    Raises
    ------
    ConfigError
        Naming the first key that is unknown or whose value does not fit, what is expected and the fix.
    """
    if not isinstance(values, Mapping):
        raise ConfigError.of(key, values, "the keys of a node", f"choose an option of the group, see --help {key}")
    if TARGET in values:
        target = locate(values[TARGET], key)
        if not is_options(target):
            check_signature(target, values, key)
            return cast(Node, Foreign(target=str(values[TARGET]), values=dict(values), found=target))
        if not issubclass(target, cls):
            expected = f"a class that makes a {cls.__name__}"
            raise ConfigError.of(f"{key}.{TARGET}", values[TARGET], expected, f"choose an option of {key}")
        cls = target
    elif not is_options(cls):
        raise ConfigError.of(f"{key}.{TARGET}", None, "the dotted name of a class", f"choose an option of {key}")
    known = keys(cls)
    check_names(cls, values, key)
    given = {
        item.name: _parse_value(item, values[item.name], _join(key, item.name)) for item in known if item.name in values
    }
    try:
        return cls(**given)
    except pydantic.ValidationError as error:
        raise _explain(error.errors()[0], {item.name: item for item in known}, values, key) from None


def _parse_value(item: Key, value: Any, key: str) -> Any:
    if get_origin(item.type) is dict and node_classes(get_args(item.type)[1]):
        if not isinstance(value, Mapping):
            raise ConfigError.of(key, value, "a mapping of nodes", f"remove the override of {key}")
        inner = get_args(item.type)[1]
        return {name: _parse_value_of(inner, part, _join(key, str(name))) for name, part in value.items()}
    return _parse_value_of(item.type, value, key)


def _parse_value_of(annotation: Any, value: Any, key: str) -> Any:
    classes = node_classes(annotation)
    return parse(classes[0], value, key) if classes and isinstance(value, Mapping) else value


def check_names(cls: Any, values: Mapping[str, Any], key: str) -> None:
    """Refuse keys that a node's class does not have, naming today's name or the nearest ones.

    Raises
    ------
    ConfigError
        For the first such key.
    """
    names = [item.name for item in keys(cls)]
    renamed, refused = getattr(cls, "renamed", {}), getattr(cls, "refused", {})
    for name in values:
        full = _join(key, name)
        if name in refused:
            raise ConfigError.of(full, values[name], *refused[name])
        if name not in names and name not in (TARGET, PARTIAL):
            today = _join(key, renamed[name]) if name in renamed else ""
            raise unknown_key(full, values[name], [_join(key, n) for n in names], today)


def _explain(detail: ErrorDetails, known: Mapping[str, Key], values: Mapping[str, Any], key: str) -> ConfigError:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "value_error":
        error = detail.get("ctx", {})["error"]
        if isinstance(error, Invalid):
            return ConfigError.of(_join(key, error.name), error.value, error.expected, error.fix)
        if isinstance(error, ConfigError):
            return error
        return ConfigError.of(_join(key, name), values.get(name), str(error), f"see --help {key}")
    item = known[name]
    if detail["type"] in ("missing", "missing_argument"):
        expected = "an option of the group, not null" if node_classes(item.type) else item.expected
        return ConfigError.of(_join(key, name), "???", expected, f"set {_join(key, name)}")
    default = "" if item.default is MISSING or node_classes(item.type) else f"; the default is {show(item.default)}"
    fix = f"set {_join(key, name)} to such a value{default}"
    return ConfigError.of(_join(key, name), values.get(name), item.expected, fix)


class Invalid(ValueError):
    """A value that its type allows and the class does not: raised by ``__post_init__``, reported with the full key.

    Parameters
    ----------
    name
        Key within the node.
    value, expected, fix
        As in :meth:`raptor.errors.RaptorError.of`.
    """

    def __init__(self, name: str, value: Any, expected: str, fix: str) -> None:
        super().__init__(f"{name}={show(value)}: expected {expected}. Fix: {fix}.")
        self.name, self.value, self.expected, self.fix = name, value, expected, fix


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
