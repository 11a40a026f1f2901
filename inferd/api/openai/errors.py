"""Write errors in OpenAI's form."""

from inferd.errors import InvalidInputError

#: The reason for parameters of OpenAI's API that inferd does not support.
UNSUPPORTED = "UNSUPPORTED_PARAMETER"

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_FOR_CALLERS = "invalid_request_error"
_FOR_SERVERS = "server_error"

#: Codes that OpenAI's clients know, by reason; the others are the reason in lower case.
_CODES = {
    "INVALID_INPUT": "invalid_value",
    "NOT_AUTHENTICATED": "invalid_api_key",
    "QUOTA_EXCEEDED": "rate_limit_exceeded",
    "TOO_MANY_CALLS": "rate_limit_exceeded",
}


def openai_form(status: int, error: dict[str, object]) -> dict[str, object]:
    """Return ``error`` in OpenAI's form; an `ErrorForm`."""
    reason = error.get("reason")
    code = _CODES.get(str(reason), str(reason).lower()) if reason else None
    if status == 401:
        # Rejections of callers without a credential have no reason.
        code = "invalid_api_key"
    described: dict[str, object] = {
        "message": error["error"],
        "type": _TYPES.get(status, _FOR_SERVERS if status >= 500 else _FOR_CALLERS),
        "param": error.get("field"),
        "code": code,
    }
    if "retry_after_ms" in error:
        described["retry_after_ms"] = error["retry_after_ms"]
    return {"error": described}


def invalid(path: str, text: str) -> InvalidInputError:
    """Return an error about the field at ``path``; ``text`` has what was expected and what came."""
    return InvalidInputError(f"{path}: {text}", field=path)


def unsupported(path: str, text: str) -> InvalidInputError:
    """Return an error about the field at ``path``, whose value inferd does not support."""
    error = invalid(path, text)
    error.reason = UNSUPPORTED
    return error
