"""The verdict on each configuration of the corpus, and that no set field is without one."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton import Translation, TritonConfigError, translate
from inferd.models.triton.fields import FIELDS, Treatment, set_fields
from inferd.models.triton.verdicts import Standing, judge
from tests.unit.models.triton.corpus import CASES, Case

PARSED = [case for case in CASES if case.message() is not None]

#: Fields that change nothing: they say which model it is, or what holds without them.
IDENTITY = {"name", "platform", "backend"}
BY_DEFAULT = {
    ("instance_group.count", 1),
    # Where GPUs are listed. Others of this kind depend on it.
    ("bert_large: instance_group.kind", pb.ModelInstanceGroup.KIND_GPU),
    ("trt_int8: instance_group.kind", pb.ModelInstanceGroup.KIND_GPU),
    ("tts_vocoder: instance_group.kind", pb.ModelInstanceGroup.KIND_GPU),
}


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request) -> Case:
    return request.param


def test_verdict(case, tmp_path):
    """Each model is taken as is, with exactly the expected differences, or not, for the expected reason."""
    verdict = judge(case.create(tmp_path), case.settings)
    expected = case.expected
    assert verdict.reason.startswith(expected.get("reason", ""))
    assert (verdict.standing, bool(verdict.reason)) == (expected["served"], "reason" in expected)
    assert verdict.settings == expected.get("settings", {})
    assert sorted(each.partition(" ")[0] for each in verdict.ignored) == sorted(expected.get("ignored", []))
    beginnings = expected.get("differences", [])
    assert len(verdict.differences) == len(beginnings)
    assert all(map(str.startswith, sorted(verdict.differences), sorted(beginnings)))


def test_has_enough_of_each():
    """At least 40 configurations: most are taken, some do not parse, some are of other backends."""
    standings = [case.expected["served"] for case in CASES]
    assert len(CASES) >= 60
    assert {standing: standings.count(standing) >= 10 for standing in Standing} == dict.fromkeys(Standing, True)
    assert len(CASES) - len(PARSED) >= 10


@pytest.mark.parametrize("case", PARSED, ids=lambda case: case.name)
def test_no_silent_difference(case):
    """Every field that is set is named as ignored or changes what comes of the configuration, or all is refused."""
    config = case.message()
    whole = _outcome(config, case.name)
    if isinstance(whole, str):
        return
    # In a list, each entry may have the field; without it in any, something changes.
    steps_of = defaultdict(list)
    for steps in _set_fields(config):
        steps_of[".".join(str(step) for step in steps if not isinstance(step, Index))].append(steps)
    for path, all_steps in steps_of.items():
        less = pb.ModelConfig()
        less.CopyFrom(config)
        values = {_clear(less, steps) for steps in all_steps}
        if (
            path in IDENTITY
            or {(name, value) for name in (path, f"{case.name}: {path}") for value in values} & BY_DEFAULT
        ):
            continue
        assert _outcome(less, case.name) != whole, f"nothing changes without {path}: {values}"


@pytest.mark.parametrize("case", PARSED, ids=lambda case: case.name)
def test_names_each_ignored_or_refused_field(case):
    """A field that the table ignores or refuses is named, whatever else is wrong; except beside another backend."""
    config = case.message()
    treatments = {path: FIELDS[path].treatment for path in set_fields(config)}
    refused = [path for path, treatment in treatments.items() if treatment is Treatment.REFUSED]
    outcome = _outcome(config, case.name)
    if isinstance(outcome, str):
        assert "only ONNX models" in outcome or all(path in outcome for path in refused)
        return
    assert not refused
    ignored = {path for path, treatment in treatments.items() if treatment is Treatment.IGNORED}
    assert ignored <= {each.partition(" (")[0] for each in outcome.ignored}


def test_table_has_each_field():
    """Every field of the contract has a line in the table, and no line is left over."""
    fields = set(_declared(pb.ModelConfig.DESCRIPTOR, ""))
    assert fields == set(FIELDS)


def test_corpus_has_each_field():
    """Each line of the table is used by a configuration of the corpus."""
    used = {path for case in PARSED for path in set_fields(case.message())}
    assert set(FIELDS) - used == set()


def _outcome(config: pb.ModelConfig, name: str) -> Translation | str:
    try:
        return translate(config, Path("/models") / name, name=name)
    except TritonConfigError as error:
        return str(error)


def _declared(message: Descriptor, prefix: str) -> Iterator[str]:
    """Yield the lines that the table needs: fields, or a message that stands for its fields."""
    for field in message.fields:
        path = f"{prefix}{field.name}"
        if path in FIELDS or field.message_type is None:
            yield path
        else:
            yield from _declared(field.message_type, f"{path}.")


class Index(int):
    """A step to an entry of a list."""


class Key(NamedTuple):
    """A step to an entry of a map."""

    key: str | int

    def __str__(self) -> str:
        return str(self.key)


def _set_fields(message: Message, outer: str = "") -> Iterator[list[Any]]:
    """Yield the steps to each set field that has no fields itself, or is ignored with all of them."""
    for field, value in message.ListFields():
        path = f"{outer}{field.name}"
        is_ignored = path in FIELDS and FIELDS[path].treatment is Treatment.IGNORED
        if field.message_type is None or is_ignored:
            yield [field.name]
        elif isinstance(value, Mapping):
            for key in value:
                # Parameters are honoured or ignored by their key.
                is_whole = path == "parameters" or not isinstance(value[key], Message)
                inner = [] if is_whole else list(_set_fields(value[key], f"{path}.value."))
                yield from ([field.name, Key(key), *steps] for steps in inner or [[]])
        elif field.is_repeated:
            for index, entry in enumerate(value):
                yield from ([field.name, Index(index), *steps] for steps in _set_fields(entry, f"{path}."))
        else:
            yield from ([field.name, *steps] for steps in list(_set_fields(value, f"{path}.")) or [[]])


def _clear(message: Message, steps: list[Any]) -> object:
    """Clear the field at the end of ``steps``, and return what it was."""
    *outer, last = steps
    below: Any = message
    for step in outer:
        below = getattr(below, step) if isinstance(step, str) else below[_plain(step)]
    if not isinstance(last, str):
        del below[_plain(last)]
        return str(last)
    value = getattr(below, last)
    below.ClearField(last)
    return value if isinstance(value, int) else str(value)


def _plain(step: Index | Key) -> str | int:
    return step.key if isinstance(step, Key) else step
