"""Each operation of HTTP decides as the method of gRPC that does the same, and as fast when credentials change."""

import http.client
import json
from collections.abc import Iterator

import grpc
import pytest

from inferd.api.rest.routes import INFER, PATHS
from tests.integration.security.calls import ALL, Metadata, Method
from tests.integration.security.conftest import NAMES, Secured, token_entry
from tests.issuer import Issuer
from tests.patience import PATIENCE_S, eventually

_TENSOR = {"name": "X", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}

#: The methods of gRPC by the operation that does the same.
TWINS = {
    INFER: "ModelInfer",
    "GET /v2/models/{model}": "ModelMetadata",
    "GET /v2/models/{model}/config": "ModelConfig",
    "GET /v2/models/{model}/stats": "ModelStatistics",
    "GET /v2/models/{model}/ready": "ModelReady",
    "GET /v2": "ServerMetadata",
    "GET /v2/models": "ListModels",
    "POST /v2/repository/index": "RepositoryIndex",
    "POST /v2/repository/models/{model}/load": "RepositoryModelLoad",
    "POST /v2/repository/models/absent/unload": "RepositoryModelUnload",
}

#: What has no twin here: it is for everyone, or about all models, or not in gRPC.
OTHERS = {
    "GET /v2/health/live",
    "GET /v2/health/ready",
    "GET /v2/models/stats",
    "GET /openapi.json",
    # About language models; see test_openai.py.
    "POST /v2/models/{model}/generate",
    "POST /v2/models/{model}/generate_stream",
}

STATUSES = {
    grpc.StatusCode.OK: {200},
    grpc.StatusCode.INVALID_ARGUMENT: {400},
    grpc.StatusCode.UNAUTHENTICATED: {401},
    grpc.StatusCode.PERMISSION_DENIED: {403},
    grpc.StatusCode.NOT_FOUND: {404},
}

#: In the data; larger bodies than 64 KiB are read when the caller has been accepted.
LARGE = " " * 100_000


class Rest:
    """Asks over one connection that is kept."""

    def __init__(self, secured: Secured) -> None:
        assert secured.server.rest is not None, "HTTP is on"
        self._connection = http.client.HTTPConnection(secured.server.rest, timeout=PATIENCE_S)

    def ask(self, operation: str, model: str, metadata: Metadata, padding: str = "") -> tuple[int, str]:
        """Return the status and the text of an error."""
        verb, _, path = operation.partition(" ")
        content = {"inputs": [_TENSOR]} if operation == INFER else {}
        body = json.dumps(content).replace("[0.0,", f"[0.0,{padding}") if verb == "POST" else None
        self._connection.request(verb, path.replace("{model}", model), body, dict(metadata))
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status == 401:
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        return answer.status, "" if answer.status == 200 else json.loads(text).get("error", "")

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def rest(secured: Secured) -> Iterator[Rest]:
    connected = Rest(secured)
    yield connected
    connected.close()


def _credentials(secured: Secured, issuer: Issuer) -> Iterator[tuple[str, Metadata]]:
    yield "none", ()
    yield "malformed", (("authorization", "Basic YTpi"),)
    for name in ("wrong", "inferd_expired", *(f"inferd_{each}" for each in NAMES if each not in ("limited", "busy"))):
        yield name, secured.bearer(name)
    yield "web token", secured.bearer(issuer.token("alice"))
    yield "expired web token", secured.bearer(issuer.token(exp=1_000_000_000))
    yield "web token of another", secured.bearer(Issuer().token())


def test_every_operation_is_compared() -> None:
    """Or is known to have no twin."""
    own = {operation.replace("{model}/unload", "absent/unload") for operation in PATHS}
    assert own == {*TWINS, *OTHERS}


def test_same_decisions(secured: Secured, issuer: Issuer, rest: Rest) -> None:
    """For every kind of credential, of models that the caller may use, may not see, and that do not exist."""
    methods: dict[str, Method] = {method.name: method for method in ALL}
    with secured.channel() as channel:
        for name, metadata in _credentials(secured, issuer):
            for operation, method in TWINS.items():
                for model in ("digits", "secret-model", "none"):
                    code, text = methods[method].call(channel, model, metadata)
                    status, found = rest.ask(operation, model, metadata)
                    if operation.endswith("/ready") and code is grpc.StatusCode.OK:
                        assert status in (200, 400)
                        continue
                    what = f"{name}: {operation} of {model}: {code} {text}"
                    assert status in STATUSES.get(code, {500}), what
                    assert found == text, what


@pytest.mark.parametrize("padding", ["", LARGE], ids=["small", "large"])
def test_changed_credentials_on_an_open_connection(secured: Secured, rest: Rest, padding: str) -> None:
    """The next request with a token that was revoked is rejected, as is one that no rule allows any more."""
    entry, token = token_entry("alice", "inferd_brief"), secured.bearer("inferd_brief")
    policy = (secured.folder / "policy.yaml").read_text()

    def ask() -> int:
        return rest.ask(INFER, "digits", token, padding)[0]

    secured.change("tokens.yaml", lambda text: text + entry)
    eventually(lambda: ask() == 200, "the token is known")
    try:
        secured.change("policy.yaml", lambda text: text.replace('"*:alice"', '"*:none"'))
        eventually(lambda: ask() == 403, "the rule is gone")
    finally:
        secured.change("policy.yaml", lambda _: policy)
    eventually(lambda: ask() == 200, "the rule is there again")
    secured.change("tokens.yaml", lambda text: text.replace(entry, ""))
    eventually(lambda: ask() == 401, "the token is revoked")
