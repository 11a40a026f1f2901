"""What a client certificate says over HTTP is what gRPC reports of it."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from inferd.http.tls import auth_context_of
from tests.certificates import LOCAL_NAMES, Authority, Pair, server_credentials
from tests.patience import PATIENCE_S

KEYS = ("x509_pem_cert", "peer_uri", "peer_spiffe_id")


class Told:
    """A gRPC server, which keeps what is reported of its callers."""

    def __init__(self, authority: Authority) -> None:
        self.contexts: list[Mapping[str, Sequence[bytes]]] = []
        self._authority = authority
        self._server = grpc.server(ThreadPoolExecutor(1))
        handler = grpc.unary_unary_rpc_method_handler(self._called)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"B": handler}),))
        pair = authority.issue(*LOCAL_NAMES)
        self._port = self._server.add_secure_port("127.0.0.1:0", server_credentials(pair, authority))
        self._server.start()

    def of(self, pair: Pair) -> dict[str, list[bytes]]:
        """Return what gRPC reports of a client with ``pair``."""
        credentials = grpc.ssl_channel_credentials(self._authority.pem, pair.key, pair.certificate)
        with grpc.secure_channel(f"localhost:{self._port}", credentials) as channel:
            channel.unary_unary("/a/B")(b"", timeout=PATIENCE_S)
        context = self.contexts.pop()
        return {key: list(context[key]) for key in KEYS if key in context}

    def stop(self) -> None:
        self._server.stop(0)

    def _called(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.contexts.append(context.auth_context())
        return message


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def told(authority: Authority) -> Iterator[Told]:
    told = Told(authority)
    yield told
    told.stop()


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("client.example",),
        ("spiffe://prod/ns/a/sa/b",),
        ("spiffe://prod/ns/a", "client.example"),
        ("spiffe://prod/a", "spiffe://prod/b"),
        ("spiffe://prod/a", "https://client.example/"),
        ("https://client.example/",),
        ("spiffe://prod",),
        ("spiffe://prod/",),
        ("spiffe:///a",),
        ("SPIFFE://prod/a",),
        ("spiffe://" + "d" * 255 + "/a",),
        ("spiffe://" + "d" * 256 + "/a",),
        ("spiffe://prod/" + "p" * 2034,),
        ("spiffe://prod/" + "p" * 2035,),
    ],
    ids=lambda names: " ".join(name[:40] for name in names),
)
def test_as_grpc(told: Told, authority: Authority, names: tuple[str, ...]) -> None:
    """The certificate, its URIs, and the SPIFFE ID where there is just one URI, and that is one."""
    pair = authority.issue(*names)
    certificate = x509.load_pem_x509_certificate(pair.certificate).public_bytes(Encoding.DER)
    assert {key: list(values) for key, values in auth_context_of(certificate).items()} == told.of(pair)
