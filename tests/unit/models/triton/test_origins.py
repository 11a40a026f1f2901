"""Where settings come from in a config.pbtxt."""

from inferd.models.triton.fields import FIELDS
from inferd.models.triton.origins import FIELD_OF, places_in


def test_fields_exist():
    """Each is one of the table of fields, or has fields in it below."""
    unknown = [field for field in FIELD_OF.values() if not any(f"{path}.".startswith(f"{field}.") for path in FIELDS)]
    assert all(field.startswith("parameters.") for field in unknown)


def test_line_of_a_field_that_is_there_once():
    """Comments and texts do not count, and of several fields of a name none is right."""
    text = """# count: 1
name: "count: 2"
instance_group { count: 900 }
parameters { key: "intra_op_thread_count" value { string_value: "-1" } }
"""
    places = places_in(text)
    assert places[("batching", "instances")] == "line 3, instance_group.count"
    assert places[("runtime", "intra_op_threads")] == "line 4, parameters.intra_op_thread_count"
    assert ("warmup",) not in places
    assert places_in(text + text)[("batching", "instances")] == "field instance_group.count"
