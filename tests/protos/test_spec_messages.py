"""TOML, Python and protobuf are spellings of one spec, and cannot drift apart."""

import tomllib
import types
import typing

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shardsgd import JobSpec, SpecError
from shardsgd.protos import training_pb2 as pb
from shardsgd.spec_files import spec_toml
from shardsgd.spec_messages import choices, spec_from_message, spec_message

SCALARS = {
    int: FieldDescriptor.TYPE_INT64,
    float: FieldDescriptor.TYPE_DOUBLE,
    str: FieldDescriptor.TYPE_STRING,
    bool: FieldDescriptor.TYPE_BOOL,
}
LISTS = {str: pb.Names, int: pb.Sizes}


def plain(annotation):
    """A type without its bounds and without "or None"."""
    if typing.get_origin(annotation) is typing.Annotated:
        return plain(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (one,) = [plain(part) for part in typing.get_args(annotation) if part is not type(None)]
        return one
    return annotation


def sections(model=JobSpec, message=pb.JobSpec.DESCRIPTOR):
    yield model, message
    for name, field in model.model_fields.items():
        if isinstance(plain(field.annotation), type) and issubclass(plain(field.annotation), BaseModel):
            yield from sections(plain(field.annotation), message.fields_by_name[name].message_type)


@pytest.mark.parametrize(("model", "message"), list(sections()), ids=lambda each: getattr(each, "name", ""))
def test_every_field_of_the_spec_is_one_of_the_message_and_of_the_same_type(model, message):
    assert set(model.model_fields) == set(message.fields_by_name)
    for name, field in model.model_fields.items():
        wanted, found = plain(field.annotation), message.fields_by_name[name]
        assert found.has_presence, f"{name}: unset must be another thing than zero"
        if typing.get_origin(wanted) is typing.Literal:
            assert sorted(choices(found.enum_type)) == sorted(typing.get_args(wanted)), name
        elif typing.get_origin(wanted) is tuple:
            assert found.message_type is LISTS[plain(typing.get_args(wanted)[0])].DESCRIPTOR, name
        elif issubclass(wanted, BaseModel):
            assert found.message_type is not None, name
        else:
            assert found.type == SCALARS[wanted], name


def values(annotation):
    wanted = plain(annotation)
    if typing.get_origin(wanted) is typing.Literal:
        return st.sampled_from(typing.get_args(wanted))
    if typing.get_origin(wanted) is tuple:
        return st.lists(values(typing.get_args(wanted)[0]), max_size=3).map(tuple)
    if issubclass(wanted, BaseModel):
        return mappings(wanted)
    return {
        int: st.integers(0, 2000),
        float: st.floats(0, 2),
        str: st.sampled_from(["digits", "a-1", "x y", ""]),
        bool: st.booleans(),
    }[wanted]


def mappings(model):
    """Fields, some of them unset, some of them wrong."""
    optional = {name: values(field.annotation) for name, field in model.model_fields.items()}
    return st.fixed_dictionaries({}, optional=optional)


def filled(message, fields):
    """A message made by hand, without our own conversion."""
    for name, value in fields.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None:
            part = getattr(message, name)
            part.SetInParent()
            if isinstance(value, dict):
                filled(part, value)
            else:
                part.items.extend(value)
        elif field.enum_type is not None:
            number = choices(field.enum_type).index(value) + 1
            setattr(message, name, number)
        else:
            setattr(message, name, value)
    return message


def result(make):
    try:
        return make()
    except SpecError as error:
        return error.problems


@given(mappings(JobSpec))
def test_a_message_means_what_keywords_and_toml_mean_and_is_wrong_where_they_are(fields):
    by_keywords = result(lambda: JobSpec(**fields))
    by_message = result(lambda: spec_from_message(filled(pb.JobSpec(), fields)))
    assert by_message == by_keywords
    if isinstance(by_keywords, JobSpec):
        assert spec_from_message(spec_message(by_keywords)) == by_keywords
        assert JobSpec(**tomllib.loads(spec_toml(by_keywords))) == by_keywords


def test_all_wrong_fields_of_a_message_are_named_at_once():
    message = pb.JobSpec(name="/", batch=pb.Batch(size=0), optimizer=pb.Optimizer(kind=99))
    with pytest.raises(SpecError) as caught:
        spec_from_message(message)
    assert {problem.path for problem in caught.value.problems} == {"name", "batch.size", "optimizer.kind", "data"}


def test_a_choice_left_unspecified_takes_the_default():
    message = pb.JobSpec(data=pb.Data(source="digits"), model=pb.Model(kind=pb.MODEL_KIND_UNSPECIFIED))
    assert spec_from_message(message).model.kind == "mlp"


def test_an_empty_list_is_another_thing_than_none():
    message = pb.JobSpec(data=pb.Data(source="digits"), model=pb.Model(hidden=pb.Sizes()))
    assert spec_from_message(message).model.hidden == ()
    assert spec_from_message(pb.JobSpec(data=pb.Data(source="digits"))).model.hidden == (64,)
