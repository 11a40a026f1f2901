"""The interceptor that lets in only who has a name, and tells those further in what it may do."""

import time
from collections.abc import Callable

import grpc

from inferd.config.security import SecuritySettings
from inferd.principal import ANONYMOUS
from inferd.rpc import Call, CallRefusal
from inferd.security.authorization.methods import UNARY_METHODS, MethodKind, kind_of, methods_of
from inferd.security.authorization.policy import denial
from inferd.security.authorization.quota import QuotaStore
from inferd.security.identity import CredentialError
from inferd.security.known_callers import Caller, KnownCallers
from inferd.security.snapshot import InForce
from inferd.security.stream_guard import StreamGuard

#: By RFC 6750, for callers who brought nothing: what to bring.
_CHALLENGE = (("www-authenticate", "Bearer"),)


class AuthenticationInterceptor:
    """Says who makes each call and, where there are rules, what they allow; refuses who has no credential that holds.

    A call with a bearer token that was seen before costs half a microsecond. A certificate counts where no such token
    was sent: who sends one that does not hold is not somebody else instead. On the poll thread.
    """

    #: What takes something that has to come back asks each call for its end by itself; most calls take nothing.
    finished = None

    def __init__(
        self,
        settings: SecuritySettings,
        in_force: InForce,
        quotas: QuotaStore,
        streams: StreamGuard,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._in_force = in_force
        self._quotas = quotas
        self._streams = streams
        self._wall_clock = wall_clock
        self._known = KnownCallers(in_force.current, quotas)
        self._takes_tokens = settings.tokens_file is not None or settings.jwt.enabled
        self._takes_certificates = bool(settings.spiffe.trust_domains)
        self._missing = "expected " + ", or ".join(
            text
            for text, is_taken in (
                ("an authorization header with a bearer token", self._takes_tokens),
                ("a client certificate with a SPIFFE ID", self._takes_certificates),
            )
            if is_taken
        )
        health = methods_of(MethodKind.HEALTH) if settings.open_health else frozenset()
        reflection = methods_of(MethodKind.REFLECTION) if settings.open_reflection else frozenset()
        self._open_methods = health | reflection

    def started(self, call: Call) -> CallRefusal | None:
        """Find out who calls."""
        method, facts = call.method, call.facts
        if method in self._open_methods:
            facts.principal = ANONYMOUS
            call.expect_small_message()
            return None
        try:
            caller = self._caller(call)
        except CredentialError as error:
            return CallRefusal(grpc.StatusCode.UNAUTHENTICATED, str(error), _CHALLENGE)
        facts.principal = caller.identity.principal
        permissions = caller.permissions
        if permissions is not None:
            kind = kind_of(method)
            if not permissions.may_call(kind):
                return forbidden(kind)
            facts.permissions = permissions
        if method not in UNARY_METHODS:
            self._streams.add(call, caller.identity, self._known.snapshot)
        return None

    def _caller(self, call: Call) -> Caller:
        known = self._known
        if known.snapshot is not self._in_force.current:
            known = self._known = KnownCallers(self._in_force.current, self._quotas)
        header: str | bytes | None = None
        # By index, because pairs of the core's are named tuples, which take long to unpack.
        for pair in call.metadata if self._takes_tokens else ():
            if pair[0] == "authorization":
                if header is not None:
                    raise CredentialError("expected one authorization header, got several")
                header = pair[1]
        if header is not None:
            return known.by_header(header, self._wall_clock)
        caller = known.by_certificate(call.auth_context()) if self._takes_certificates else None
        if caller is None:
            raise CredentialError(self._missing)
        return caller


def forbidden(kind: MethodKind) -> CallRefusal:
    """Return the refusal of a caller that no rule grants methods of ``kind``."""
    return CallRefusal(grpc.StatusCode.PERMISSION_DENIED, denial(kind))
