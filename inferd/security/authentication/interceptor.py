"""The interceptor that authenticates calls and attaches the caller's permissions to them."""

import time
from collections.abc import Callable

import grpc

from inferd.call_context import ANONYMOUS
from inferd.config.security import SecuritySettings
from inferd.rpc import Call, Rejection
from inferd.security.authentication.credentials import Caller, CredentialCache, SnapshotStore
from inferd.security.authentication.identity import CredentialError
from inferd.security.authentication.stream_revoker import StreamRevoker
from inferd.security.authorization.methods import UNARY_METHODS, MethodKind, kind_of, methods_of
from inferd.security.authorization.policy import denial
from inferd.security.authorization.quota import QuotaStore

#: RFC 6750: which credential to send.
_CHALLENGE = (("www-authenticate", "Bearer"),)


class AuthenticationInterceptor:
    """Sets the principal of each call and, if there is a policy, its permissions; rejects unauthenticated calls.

    A call with a cached token costs half a microsecond. A client certificate is used only where no token was sent: an
    invalid token is rejected rather than replaced by another identity. Poll thread only.
    """

    #: Most calls have nothing to clean up; the others subscribe to their end themselves.
    finished = None

    def __init__(
        self,
        settings: SecuritySettings,
        snapshots: SnapshotStore,
        quotas: QuotaStore,
        streams: StreamRevoker,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshots = snapshots
        self._quotas = quotas
        self._streams = streams
        self._wall_clock = wall_clock
        self._cache = CredentialCache(snapshots.current, quotas)
        self._accepts_tokens = settings.tokens_file is not None or settings.jwt.enabled
        self._accepts_certificates = bool(settings.spiffe.trust_domains)
        self._missing = "expected " + ", or ".join(
            text
            for text, is_accepted in (
                ("an authorization header with a bearer token", self._accepts_tokens),
                ("a client certificate with a SPIFFE ID", self._accepts_certificates),
            )
            if is_accepted
        )
        health = methods_of(MethodKind.HEALTH) if settings.open_health else frozenset()
        reflection = methods_of(MethodKind.REFLECTION) if settings.open_reflection else frozenset()
        self._open_methods = health | reflection | methods_of(MethodKind.PAGE)

    def started(self, call: Call) -> Rejection | None:
        """Authenticate ``call`` and check that its caller may call methods of its kind."""
        method, context = call.method, call.context
        if method in self._open_methods:
            context.principal = ANONYMOUS
            call.expect_small_message()
            return None
        try:
            caller = self._authenticate(call)
        except CredentialError as error:
            return Rejection(grpc.StatusCode.UNAUTHENTICATED, str(error), _CHALLENGE)
        context.principal = caller.identity.principal
        permissions = caller.permissions
        if permissions is not None:
            kind = kind_of(method)
            if not permissions.may_call(kind):
                return Rejection(grpc.StatusCode.PERMISSION_DENIED, denial(kind))
            context.permissions = permissions
        if method not in UNARY_METHODS:
            self._streams.add(call, caller.identity, self._cache.snapshot)
        return None

    def _authenticate(self, call: Call) -> Caller:
        cache = self._cache
        if cache.snapshot is not self._snapshots.current:
            cache = self._cache = CredentialCache(self._snapshots.current, self._quotas)
        header: str | bytes | None = None
        # By index: unpacking gRPC's named tuples is slower.
        for pair in call.metadata if self._accepts_tokens else ():
            if pair[0] == "authorization":
                if header is not None:
                    raise CredentialError("expected one authorization header, got several")
                header = pair[1]
        if header is not None:
            return cache.by_header(header, self._wall_clock)
        caller = cache.by_certificate(call.auth_context()) if self._accepts_certificates else None
        if caller is None:
            raise CredentialError(self._missing)
        return caller
