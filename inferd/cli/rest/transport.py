"""Single requests over HTTP with urllib3, and their errors. `inferd health` uses it too, so it imports little."""

import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import BadStatusLine, RemoteDisconnected
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as Urllib3Timeout

import inferd
from inferd.cli.rest.address import HttpAddress
from inferd.cli.rest.errors import RestError
from inferd.plain_text import clipped, escaped

#: The statuses of gRPC by those of HTTP, so that both are reported by the same names.
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    413: "RESOURCE_EXHAUSTED",
    415: "UNIMPLEMENTED",
    429: "RESOURCE_EXHAUSTED",
    431: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

#: Statuses after which the request may be sent again: it was not run.
_REFUSED = frozenset({429, 503})

_OK = 200
_READ_BYTES = 1 << 18

#: Reasons of such statuses that stay: over gRPC they come with a pushback that forbids retries.
_FINAL_REASONS = frozenset({"MODEL_CONTROL_DISABLED", "OUT_OF_MEMORY"})

_TIMEOUT_HEADER = "x-request-timeout-ms"


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer."""

    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401  (by the operation)
        """Return the body as JSON. Raises `RestError` if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise unexpected_answer(200, self.headers) from None


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A successful answer whose body is still to come; closing ``parts`` gives it up."""

    headers: Mapping[str, str]
    parts: Generator[bytes, None, None]


class Transport:
    """Connections to one server. Redirects are not followed, and nothing is retried here."""

    def __init__(self, address: HttpAddress) -> None:
        """Raise `OSError` or `ValueError` for certificates that cannot be used."""
        self._address = address
        self._headers = {"User-Agent": f"inferd-client/{inferd.__version__}", **address.headers()}
        self._manager = _manager(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.clear()

    def request(
        self,
        verb: str,
        path: Iterable[str],
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send one request; ``path`` is in parts, which are quoted here. Raises `RestError`."""
        answer = self.stream(verb, path, body=body, headers=headers, query=query, timeout_s=timeout_s)
        return Answer(answer.headers, b"".join(answer.parts))

    def stream(
        self,
        verb: str,
        path: Iterable[str],
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> StreamedAnswer:
        """As `request`, with the body as it comes."""
        if timeout_s is not None and timeout_s <= 0:
            raise _timeout_error(timeout_s)
        sent = {**self._headers, **(headers or {})}
        if timeout_s is not None:
            sent[_TIMEOUT_HEADER] = str(max(1, round(timeout_s * 1000)))
        url = "/".join((self._address.base, *(quote(part, safe="") for part in path)))
        if query:
            url += f"?{urlencode(query)}"
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._translated_errors(timeout_s):
            response = self._manager.urlopen(
                verb,
                url,
                body=body,
                headers=sent,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(total=timeout_s),
                preload_content=False,
            )
        parts = self._parts(response, deadline, timeout_s)
        if response.status != _OK:
            raise _error_of(response.status, response.headers, b"".join(parts))
        return StreamedAnswer(response.headers, parts)

    def _parts(
        self, response: urllib3.BaseHTTPResponse, deadline: float | None, timeout_s: float | None
    ) -> Generator[bytes, None, None]:
        """Yield the body as it comes: urllib3 limits the time of each read, and not of all of them together.

        A body that is not read to its end takes its connection along.
        """
        try:
            with self._translated_errors(timeout_s):
                while part := response.read1(_READ_BYTES):
                    yield part
                    if deadline is not None and time.monotonic() > deadline:
                        raise Urllib3Timeout
                response.release_conn()
        finally:
            response.close()

    @contextmanager
    def _translated_errors(self, timeout_s: float | None) -> Iterator[None]:
        try:
            yield
        except HTTPError as error:
            raise _connection_error(self._address.url, error, timeout_s) from None


def unexpected_answer(http_status: int, headers: Mapping[str, str]) -> RestError:
    """Return the error of an answer that is not one of this protocol."""
    kind = escaped(clipped(headers.get("Content-Type", "no content type")))
    text = f"expected an answer of the Open Inference Protocol, got HTTP status {http_status} with {kind}"
    return RestError(
        text,
        status=_STATUSES.get(http_status, "UNKNOWN"),
        http_status=http_status,
        retry_after_s=_seconds(headers.get("Retry-After")),
        may_retry=http_status in _REFUSED,
    )


def _manager(address: HttpAddress) -> urllib3.PoolManager:
    options: dict[str, Any] = {"maxsize": 1}
    if address.is_https:
        options["ssl_context"] = address.ssl_context()
        if address.tls is not None and address.tls.server_name is not None:
            options["server_hostname"] = options["assert_hostname"] = address.tls.server_name
    proxy = None if address.is_loopback or proxy_bypass(address.host) else getproxies().get(address.scheme)
    return urllib3.PoolManager(**options) if proxy is None else urllib3.ProxyManager(proxy, **options)


def _error_of(http_status: int, headers: Mapping[str, str], body: bytes) -> RestError:
    try:
        content = json.loads(body)
        text = content["error"]
        if isinstance(text, dict):
            # OpenAI's form, whose codes are reasons in lower case.
            content = {**text, "reason": str(text.get("code")).upper()}
            text = text["message"]
    except (ValueError, KeyError, TypeError):
        return unexpected_answer(http_status, headers)
    hint_ms = content.get("retry_after_ms")
    hint_s = hint_ms / 1000 if isinstance(hint_ms, int | float) and hint_ms >= 0 else None
    return RestError(
        str(text),
        status=_STATUSES.get(http_status, "UNKNOWN"),
        http_status=http_status,
        retry_after_s=hint_s if hint_s is not None else _seconds(headers.get("Retry-After")),
        request_id=headers.get("x-request-id", ""),
        is_protocol_error=True,
        may_retry=http_status in _REFUSED and content.get("reason") not in _FINAL_REASONS,
    )


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a Retry-After; None without one, or for a date."""
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdecimal() else None


def _connection_error(address: str, error: HTTPError, timeout_s: float | None) -> RestError:
    # The first is a timeout too, by its class.
    if isinstance(error, NewConnectionError):
        reason = error.__cause__ or error
        text = getattr(reason, "strerror", None) or str(reason)
        return RestError(f"no connection to {address}: {text}", status="UNAVAILABLE", may_retry=True)
    if isinstance(error, Urllib3Timeout):
        return _timeout_error(timeout_s)
    cause = error.args[-1] if error.args else error
    if isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected):
        cause = "expected HTTP, got other bytes; is it the port of gRPC, which is given without http://?"
    return RestError(f"no answer from {address}: {cause}", status="UNAVAILABLE")


def _timeout_error(timeout_s: float | None) -> RestError:
    return RestError(f"no answer within {timeout_s:g} s", status="DEADLINE_EXCEEDED")
