"""The spec as a protobuf message and back. By reflection: a field's name, and its choices' names, are the same in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from pydantic import BaseModel

from shardsgd.protos import training_pb2 as pb
from shardsgd.spec import JobSpec

# Messages that stand for a list, where none at all is another thing than an empty one.
_LISTS = (pb.Names.DESCRIPTOR, pb.Sizes.DESCRIPTOR)


def spec_message(spec: JobSpec) -> pb.JobSpec:
    """A spec as a message; fields that are None are left unset."""
    message = pb.JobSpec()
    _fill(message, spec)
    return message


def spec_from_message(message: pb.JobSpec) -> JobSpec:
    """The spec that a message means; what is not set takes its default.

    Raises:
        SpecError: lists every wrong field at once.
    """
    return JobSpec(spec_source="spec", **_fields(message))


def choice_name(enum: EnumDescriptor, number: int) -> str | int:
    """A choice as specs spell it: `MODEL_KIND_MLP` is "mlp"; the number itself where it means nothing."""
    value = enum.values_by_number.get(number)
    return number if value is None or number == 0 else value.name.removeprefix(_prefix(enum)).lower()


def choices(enum: EnumDescriptor) -> list[str]:
    """All choices, as specs spell them."""
    return [str(choice_name(enum, value.number)) for value in enum.values if value.number]


def is_list(field: FieldDescriptor) -> bool:
    """Whether a field is a list that may be unset."""
    return field.message_type in _LISTS


def _fill(message: Message, section: BaseModel) -> None:
    for field in _described(message):
        value = getattr(section, field.name)
        if value is None:
            continue
        if isinstance(value, BaseModel):
            part = getattr(message, field.name)
            part.SetInParent()
            _fill(part, value)
        elif is_list(field):
            part = getattr(message, field.name)
            part.SetInParent()
            part.items.extend(value)
        elif field.enum_type is not None:
            name = f"{_prefix(field.enum_type)}{value.upper()}"
            setattr(message, field.name, field.enum_type.values_by_name[name].number)
        else:
            setattr(message, field.name, value)


def _fields(message: Message) -> Mapping[str, Any]:
    fields: dict[str, Any] = {}
    for field in _described(message):
        if not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if is_list(field):
            fields[field.name] = tuple(value.items)
        elif field.message_type is not None:
            fields[field.name] = _fields(value)
        elif field.enum_type is not None:
            # A set but unspecified choice takes the default, like an unset one.
            if value:
                fields[field.name] = choice_name(field.enum_type, value)
        else:
            fields[field.name] = value
    return fields


def _described(message: Message) -> Sequence[FieldDescriptor]:
    """A message's fields; which of two implementations describes them is of no interest."""
    return cast("Sequence[FieldDescriptor]", message.DESCRIPTOR.fields)


def _prefix(enum: EnumDescriptor) -> str:
    """`MODEL_KIND_` of `MODEL_KIND_UNSPECIFIED`."""
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
