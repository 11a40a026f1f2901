"""Which names may stand for several lengths."""

import pytest

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.loose_dimensions import loose_dimensions
from tests.unit.runtime.specs import spec

INPUTS = [spec("ids", ("batch", "sequence"), datatype="INT64"), spec("size", (2, None))]


def test_names_of_the_model_are_taken():
    """Or none."""
    assert loose_dimensions(["sequence"], INPUTS) == {"sequence"}
    assert loose_dimensions([], INPUTS) == frozenset()


@pytest.mark.parametrize(
    ("inputs", "have"), [(INPUTS, "which are batch, sequence"), (INPUTS[1:], "which are none with a name")]
)
def test_a_name_that_the_model_does_not_have_is_refused(inputs, have):
    """With those that it has."""
    with pytest.raises(ModelLoadError, match=rf"^loose_dimensions: expected open dimensions .*, {have}, got seq$"):
        loose_dimensions(["seq"], inputs)
