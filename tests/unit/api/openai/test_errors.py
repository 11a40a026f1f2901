"""Errors in OpenAI's form."""

import pytest

from inferd.api.openai.errors import openai_form


@pytest.mark.parametrize(
    ("status", "error", "kind", "code"),
    [
        (400, {"reason": "INVALID_INPUT", "field": "n"}, "invalid_request_error", "invalid_value"),
        (401, {}, "authentication_error", "invalid_api_key"),
        (403, {}, "permission_error", None),
        (404, {"reason": "UNKNOWN_PATH"}, "invalid_request_error", "unknown_path"),
        (429, {"reason": "QUOTA_EXCEEDED", "retry_after_ms": 5}, "rate_limit_error", "rate_limit_exceeded"),
        (429, {"reason": "QUEUE_FULL"}, "rate_limit_error", "queue_full"),
        (500, {}, "server_error", None),
        (503, {"reason": "MODEL_UNAVAILABLE"}, "server_error", "model_unavailable"),
    ],
)
def test_error_has_openais_form(status: int, error: dict, kind: str, code: str | None) -> None:
    """The type follows from the status, the code from the reason, and the parameter is the field."""
    found = openai_form(status, {"error": "text", **error})["error"]
    assert isinstance(found, dict)
    assert found.pop("retry_after_ms", None) == error.get("retry_after_ms")
    assert found == {"message": "text", "type": kind, "param": error.get("field"), "code": code}
