"""The JSON of a load's override."""

import pytest

from inferd.models.triton import TritonConfigError, config_from_json


def test_takes_both_spellings():
    """Names may be those of the proto or of its JSON, as in Triton."""
    config = config_from_json('{"name": "m", "maxBatchSize": 8, "instance_group": [{"count": 2, "kind": "KIND_CPU"}]}')
    assert (config.name, config.max_batch_size, config.instance_group[0].count) == ("m", 8, 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Failed to load JSON"),
        ("{", "Failed to load JSON"),
        ("[]", "expected an object in braces"),
        ('""', "expected an object in braces"),
        ('{"max_batch": 8}', 'Message type "inference.ModelConfig" has no field named "max_batch"'),
        ('{"max_batch_size": "many"}', "Failed to parse max_batch_size field"),
        ('{"input": [{"data_type": "TYPE_BYTES"}]}', "Invalid enum value TYPE_BYTES"),
        ("[" * 100_000, ""),
        ('{"parameters": ' * 1000, ""),
    ],
)
def test_refuses_by_tritons_text(text, expected):
    """Unknown fields, bad values and bad JSON are refused, in one line that clients of Triton know."""
    with pytest.raises(TritonConfigError, match=r"^Invalid config override: .") as raised:
        config_from_json(text)
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)
