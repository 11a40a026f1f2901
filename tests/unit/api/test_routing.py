"""The routing that a caller asks for."""

import math

import pytest

from inferd.api.v1.routing import routing_settings
from inferd.errors import InvalidInputError


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        ({"weights": {"1": math.nan}}, "routing.weights.1", "expected a finite number, got nan"),
        ({"weights": {"1": 0}}, "routing.weights", "expected at least one weight above 0"),
        ({"labels": {"": "1"}}, "routing.labels.", "expected at least 1 character, got ''"),
        ({"shadow": {"version": "1", "share": 2}}, "routing.shadow.share", "expected less than or equal to 1, got 2"),
        (
            {"weights": {"best": 1}},
            "routing.weights",
            "expected the number of a version or one of the labels, got best",
        ),
    ],
)
def test_names_field_of_invalid_routing(content, field, said):
    """With what was expected and what came."""
    with pytest.raises(InvalidInputError) as error:
        routing_settings(content)
    assert error.value.field == field
    assert str(error.value) == f"{field}: {said}"
