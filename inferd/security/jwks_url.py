"""Keeps a set of keys that an issuer publishes at a URL up to date."""

import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from inferd.security.files import BadFileError
from inferd.security.jwks import KeySet
from inferd.security.periodic import PeriodicThread

_log = logging.getLogger(__name__)

_TIMEOUT_S = 10.0
_LARGEST_BYTES = 1024 * 1024

#: Tokens with unknown keys make us fetch again, but no more often than this: anybody can make such tokens.
_LEAST_PAUSE_S = 10.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Goes nowhere but to the URL that was configured: a redirect might lead away from https."""

    def redirect_request(self, *_args: object) -> None:
        """Follow nothing."""


def fetch(url: str) -> bytes:
    """Return what is at ``url``. Raises `OSError`, or `http.client.HTTPException` for what is not HTTP."""
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(url, timeout=_TIMEOUT_S) as response:
        content: bytes = response.read(_LARGEST_BYTES + 1)
    if len(content) > _LARGEST_BYTES:
        raise OSError(f"expected at most {_LARGEST_BYTES} bytes")
    return content


class JwksUrl:
    """Fetches keys every ``period_s`` seconds, and when it is told of unknown ones; hands over those that are new.

    While the URL cannot be reached or has nonsense, the keys that were last good stay in force.
    Threads: ``unknown_key`` any, without blocking; ``on_keys`` is called in a thread of this, and by ``start``.
    """

    def __init__(
        self,
        url: str,
        *,
        period_s: float,
        on_keys: Callable[[KeySet], None],
        fetch: Callable[[str], bytes] = fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._on_keys = on_keys
        self._fetch = fetch
        self._clock = clock
        self._keys: KeySet | None = None
        self._tried_at = -_LEAST_PAUSE_S
        self._fetched_at = clock()
        self._thread = PeriodicThread("inferd-jwks", period_s=period_s, action=self.refresh)
        #: How often fetching has failed.
        self.failures = 0

    def start(self) -> None:
        """Fetch once, which may fail, and go on in a thread."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """End the thread, or leave it behind if it waits for the URL."""
        self._thread.stop(timeout_s=1.0)

    def unknown_key(self) -> None:
        """Fetch soon, unless that was done just now: there may be a new key."""
        if self._clock() - self._tried_at >= _LEAST_PAUSE_S:
            self._tried_at = self._clock()
            self._thread.wake()

    def age_s(self) -> float:
        """Return how long ago keys were fetched that are good, or if never, for how long that has been tried."""
        return self._clock() - self._fetched_at

    def refresh(self) -> None:
        """Fetch now; in the thread of this."""
        self._tried_at = self._clock()
        try:
            keys = KeySet.parse(self._fetch(self._url), self._url)
        except (OSError, http.client.HTTPException, BadFileError) as error:
            self.failures += 1
            _log.error("keys could not be fetched; those that there are stay in force", extra=_facts(self._url, error))
            return
        self._fetched_at = self._clock()
        if keys != self._keys:
            self._keys = keys
            self._on_keys(keys)
            _log.info("keys are in force", extra={"url": self._url})


def _facts(url: str, error: Exception) -> dict[str, str]:
    # What the other side sends is none of our texts; its status is enough.
    if isinstance(error, urllib.error.HTTPError):
        reason = f"HTTP status {error.code}"
    elif isinstance(error, http.client.HTTPException):
        reason = f"expected an answer in HTTP, got {type(error).__name__}"
    else:
        reason = str(error)
    return {"url": url, "reason": reason}
