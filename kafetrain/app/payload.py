"""Typed payloads: a handler that takes a model, made into one that takes a record.

    def charge(order: Order) -> None                  a pydantic model, from JSON or from what `decode` gives
    def charge(order: Order, record: Record) -> None  and the record beside it

A payload that is no such thing can never succeed: it is a dead letter at once, with a reason that names the fields and
quotes no value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from kafetrain.errors import ConfigurationError, NotRetriableError
from kafetrain.handlers import check_handler
from kafetrain.record import Handler, Record, place_of

__all__ = ["Decode", "typed"]

Decode: TypeAlias = Callable[[bytes], Any]
"""From a record's value to what the handler takes: Avro, Protobuf, anything."""

MOST_FIELDS = 10


def typed(handler: Callable[..., object], decode: Decode | None = None) -> Handler:
    """The handler as one that takes a record. As it is, where it takes a record already.

    Raises `ConfigurationError` for what can be called with neither.
    """
    check_handler(handler)
    if decode is not None:
        check_handler(decode, "decode")
    first, takes_record = _signature(handler)
    model = _model_of(first)
    if model is None and decode is None:
        if takes_record:
            raise ConfigurationError(
                f"handler {_name(handler)} takes two arguments, and its first is annotated with no pydantic model: "
                f"annotate it, or pass decode="
            )
        return handler
    read = _reader(model, decode)

    def handle(record: Record) -> object:
        payload = read(record)
        return handler(payload, record) if takes_record else handler(payload)

    handle.__name__ = handle.__qualname__ = _name(handler)
    return handle


def _signature(handler: Callable[..., object]) -> tuple[Any, bool]:
    """The annotation of the first parameter, and whether a second one is to get the record."""
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # some callables of C have none
        return None, False
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    needed = [parameter for parameter in positional if parameter.default is parameter.empty]
    variadic = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in signature.parameters.values())
    if len(needed) > 2 or not (positional or variadic):
        raise ConfigurationError(
            f"handler {_name(handler)} takes {len(needed)} arguments: it is called with the record, or with a payload "
            f"and the record"
        )
    if not positional:
        return None, False
    function = handler if inspect.isroutine(handler) else type(handler).__call__
    try:
        hints = get_type_hints(function)
    except Exception:  # names that exist for type checkers only
        hints = {}
    return hints.get(positional[0].name, positional[0].annotation), len(needed) == 2


def _model_of(annotation: Any) -> TypeAdapter[Any] | None:
    """What validates the payload, where the annotation has a pydantic model in it: `Order`, `Order | None`, ..."""
    if not _has_model(annotation):
        return None
    return TypeAdapter(annotation)


def _has_model(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(_has_model(part) for part in getattr(annotation, "__args__", ()))


def _reader(model: TypeAdapter[Any] | None, decode: Decode | None) -> Callable[[Record], Any]:
    def read(record: Record) -> Any:
        if record.value is None or decode is None:
            if model is None:
                return None
            from_json = record.value is not None
            return _validated(record, model.validate_json if from_json else model.validate_python, record.value)
        try:
            decoded = decode(record.value)
        except Exception as error:
            reason = f"{place_of(record)}: its payload cannot be decoded: {type(error).__name__}"
            raise NotRetriableError(reason) from None
        return decoded if model is None else _validated(record, model.validate_python, decoded)

    return read


def _validated(record: Record, validate: Callable[[Any], Any], value: Any) -> Any:
    try:
        return validate(value)
    except ValidationError as error:
        reason = f"{place_of(record)}: its payload is not what the handler takes: {_fields(error)}"
    raise NotRetriableError(reason)  # out here: as its context the error would keep the payload


def _fields(error: ValidationError) -> str:
    # Not the inputs; nor the texts of an application's own validators, which may quote them.
    details = error.errors(include_url=False, include_input=False, include_context=False)
    own = ("value_error", "assertion_error")
    said = [
        f"{'.'.join(map(str, detail['loc'])) or 'the whole'}: "
        + ("its validator refuses it" if detail["type"] in own else _plain(detail["type"], detail["msg"]))
        for detail in details[:MOST_FIELDS]
    ]
    more = len(details) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more else "")


def _plain(kind: str, message: str) -> str:
    return "it is no JSON" if kind == "json_invalid" else message[:1].lower() + message[1:]


def _name(handler: object) -> str:
    return getattr(handler, "__qualname__", type(handler).__qualname__)
