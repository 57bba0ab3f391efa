"""What kind of module an object is, and which models a program reaches: all by duck typing.

A language or embedding model is known by the name of a class it descends from, so the engine's own
classes, subclasses and stand-ins are all understood and none is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any


class Role(Enum):
    """What a call of the module is."""

    MODULE = "module"
    LANGUAGE_MODEL = "LanguageModel"
    EMBEDDING_MODEL = "EmbeddingModel"


#: OpenTelemetry GenAI operation names of model calls.
OPERATIONS = {Role.LANGUAGE_MODEL: "chat", Role.EMBEDDING_MODEL: "embeddings"}
_MODEL_ATTRIBUTES = ("language_model", "sub_language_model", "embedding_model")
_MODEL_ROLES = {role.value: role for role in OPERATIONS}


def role_of_class(cls: type) -> Role:
    """The role of a class's instances."""
    for base in cls.__mro__:
        if base.__name__ in _MODEL_ROLES:
            return _MODEL_ROLES[base.__name__]
    return Role.MODULE


def role_of(module: Any) -> Role:
    """The role of a module."""
    return role_of_class(type(module))


def name_of(module: Any) -> str:
    """Its name, or its class's."""
    return str(getattr(module, "name", None) or type(module).__name__)


def model_and_provider(module: Any) -> tuple[str, str | None]:
    """From ``model="provider/name"``, as litellm writes it; no slash, no provider."""
    text = str(getattr(module, "model", None) or name_of(module))
    provider, slash, model = text.partition("/")
    return (model, provider) if slash and provider and model else (text, None)


def reachable_models(program: Any, role: Role) -> list[Any]:
    """The models of one role that a program reaches, each once, in order, each followed by its
    chain of fallbacks.
    """
    found: list[Any] = []
    for module in _modules(program):
        own = [module] if role_of(module) is role else []
        for model in (*own, *(getattr(module, name, None) for name in _MODEL_ATTRIBUTES)):
            _add_chain(found, model, role)
    return found


def _add_chain(found: list[Any], model: Any, role: Role) -> None:
    while model is not None and role_of(model) is role:
        if any(model is known for known in found):
            return
        found.append(model)
        model = getattr(model, "fallback", None)


def _modules(program: Any) -> Iterator[Any]:
    """The program and all modules below it."""
    flatten = getattr(program, "_flatten_modules", None)
    if callable(flatten):
        yield from flatten(include_self=True, recursive=True)
        return
    waiting, seen = [program], set()
    while waiting:
        module = waiting.pop(0)
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        yield module
        waiting.extend(getattr(module, "modules", None) or ())
