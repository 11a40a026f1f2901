"""The status page of a real server: what is open, what needs a token, and numbers that follow requests."""

from collections.abc import Mapping

import pytest
import urllib3

from inferd import demo
from inferd.security.authentication.bearer_tokens import StoredToken, format_entry, hash_token
from tests.patience import eventually
from tests.server import ServerProcess, serving

_POLICY = """
rules:
- principals: ["token:ann"]
  methods: [infer, metadata, admin]
- principals: ["token:bob"]
  models: [other]
  methods: [metadata]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    tokens = [StoredToken(name=name, sha256=hash_token(f"inferd_{name}"), expires=None) for name in ("ann", "bob")]
    (folder / "tokens.yaml").write_text("".join(map(format_entry, tokens)))
    (folder / "policy.yaml").write_text(_POLICY)
    settings = (f"security.tokens_file={folder}/tokens.yaml", f"security.policy_file={folder}/policy.yaml")
    with serving(demo.repository(), *(f"--set={setting}" for setting in settings)) as running:
        yield running


def _ask(
    server: ServerProcess, path: str, caller: str = "", body: object = None, headers: Mapping[str, str] | None = None
) -> urllib3.BaseHTTPResponse:
    authorization = {"Authorization": f"Bearer inferd_{caller}"} if caller else {}
    return urllib3.request(
        "GET" if body is None else "POST",
        f"http://{server.rest}{path}",
        json=body,
        headers={**(headers or {}), **authorization},
        retries=False,
    )


def _history(server: ServerProcess) -> dict[str, list[float]]:
    history: dict[str, list[float]] = _ask(server, "/page/status", "ann").json()["history"]
    return history


def test_files_are_open_and_data_is_not(server):
    """The page itself asks for the token."""
    for path in ("/", "/page/files/main.js"):
        answer = _ask(server, path, headers={"Accept-Encoding": "gzip"})
        assert (answer.status, answer.headers["Content-Encoding"]) == (200, "gzip")
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        again = _ask(server, path, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status, again.data) == (304, b"")
    for path, body in (
        ("/page/status", None),
        ("/page/models/digits/history", None),
        ("/page/models/digits/example", None),
        ("/page/models/digits/labels", {"label": "stable", "version": "1"}),
    ):
        for caller in ("", "eve"):
            refused = _ask(server, path, caller, body)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_example_can_be_sent_and_is_counted(server):
    """As the page's form does it: the answer is right, with its timing, and the charts show it."""
    example = _ask(server, "/page/models/digits/example?number=7", "ann").json()
    answer = _ask(
        server, "/v2/models/digits/infer", "ann", {"inputs": example["inputs"]}, headers={"inferd-timing": "1"}
    )
    (label,) = (output for output in answer.json()["outputs"] if output["name"] == "label")
    assert label["data"] == [7]
    assert "run;dur=" in answer.headers["inferd-timing"]
    eventually(lambda: any(_history(server)["answered"]), "a request in the history")
    history = _history(server)
    assert max(filter(None, history["p99_ms"])) > 0
    assert history["resident_bytes"][-1] > history["model_bytes"][-1] > 0
    only = _ask(server, "/page/models/digits/history?since=0", "ann").json()
    assert any(only["answered"])


def test_callers_see_what_their_rules_allow(server):
    """One without a rule for the model learns nothing of it."""
    status = _ask(server, "/page/status", "bob").json()
    assert (status["models"], status["recent"]) == ([], {})
    assert not any(status["history"]["answered"])
    assert _ask(server, "/page/models/digits/history", "bob").status == 404
    assert _ask(server, "/page/models/digits/labels", "bob", {"label": "a", "version": "1"}).status == 403


def test_labels(server):
    """Set by the page, used by requests."""
    assert _ask(server, "/page/models/digits/labels", "ann", {"label": "stable", "version": "1"}).json() == {
        "labels": {"stable": "1"}
    }
    assert _ask(server, "/v2/models/digits/versions/stable/ready", "ann").status == 200
    wrong = _ask(server, "/page/models/digits/labels", "ann", {"label": "stable", "version": "9"})
    assert (wrong.status, "got 9" in wrong.json()["error"]) == (400, True)


def test_page_can_be_switched_off():
    """The rest of the port stays as it is."""
    with serving(demo.repository(), "--set", "server.http.status_page=false") as server:
        off = _ask(server, "/")
        assert (off.status, off.data.startswith(b"The status page is switched off")) == (404, True)
        assert _ask(server, "/page/status").status == 404
        assert _ask(server, "/v2/health/ready").status == 200
