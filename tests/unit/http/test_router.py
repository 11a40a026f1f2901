"""The table of operations."""

import pytest

from inferd.http.messages import Found, NotFound, Operation
from inferd.http.router import OperationRouter


def _operation(method):
    return Operation(method=method, handler=lambda call, message: None, max_body_bytes=0)


_INFER = _operation("POST /v2/models/{model}/infer")
_READY = _operation("GET /v2/models/{model}/ready")
_MODEL = _operation("GET /v2/models/{model}")
_STATS = _operation("GET /v2/models/stats")
_SHOW, _CHANGE = _operation("GET /v2/models/{model}/routing"), _operation("PUT /v2/models/{model}/routing")
_PAGE = _operation("GET /")


@pytest.fixture
def router():
    return OperationRouter(
        [
            ("/v2/models/{model}/infer", _INFER),
            ("/v2/models/{model}/versions/{version}/infer", _INFER),
            ("/v2/models/{model}/ready", _READY),
            ("/v2/models/{model}", _MODEL),
            ("/v2/models/stats", _STATS),
            ("/v2/models/{model}/routing", _SHOW),
            ("/v2/models/{model}/routing", _CHANGE),
            ("/", _PAGE),
        ],
        absent={"/v2/models/{model}/trace": "no traces here"},
    )


@pytest.mark.parametrize(
    ("verb", "path", "operation", "parameters"),
    [
        ("POST", "/v2/models/digits/infer", _INFER, {"model": "digits"}),
        ("POST", "/v2/models/digits/versions/3/infer", _INFER, {"model": "digits", "version": "3"}),
        ("POST", "/v2/models/digits/versions/live/infer/", _INFER, {"model": "digits", "version": "live"}),
        ("GET", "/v2/models/a%20b%2Fc%C3%A9", _MODEL, {"model": "a b/cé"}),
        ("GET", "/v2/models/stats", _STATS, {}),
        ("POST", "/v2/models/stats/infer", _INFER, {"model": "stats"}),
        ("HEAD", "/v2/models/digits/ready", _READY, {"model": "digits"}),
        ("PUT", "/v2/models/digits/routing", _CHANGE, {"model": "digits"}),
        ("GET", "/", _PAGE, {}),
        ("GET", "/v2/models/%zz", _MODEL, {"model": "%zz"}),
    ],
)
def test_operation_of_a_path(router, verb, path, operation, parameters):
    """Found the same way again, when it is known."""
    for _ in range(2):
        assert router.find(verb, path) == Found(operation, parameters)


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("GET", "/v2/models/digits/infer", ("POST",)),
        ("DELETE", "/v2/models/digits/routing", ("GET", "HEAD", "PUT")),
        ("POST", "/v2/models/stats", ("GET", "HEAD")),
        ("post", "/v2/models/digits/infer", ("POST",)),
    ],
)
def test_another_verb(router, verb, path, allowed):
    """The answer says which are allowed."""
    found = router.find(verb, path)
    assert found.allowed == allowed
    assert found.text == f'expected {" or ".join(allowed)} for "{path}", got "{verb}"'


@pytest.mark.parametrize(
    "path",
    ["/v3", "/v2/models//infer", "//v2/models/stats", "/v2/models/a/b/infer", "", "/V2/models/stats", "/v2/models/%ff"],
)
def test_unknown_paths(router, path):
    """Names are not guessed."""
    found = router.find("GET", path)
    if path == "":
        assert found == Found(_PAGE, {})
    else:
        assert isinstance(found, NotFound)
        assert found.allowed == ()


def test_paths_of_other_servers(router):
    """A path that clients of these know gets a text of its own, whatever the verb."""
    assert router.find("POST", "/v2/models/digits/trace") == NotFound("no traces here")


def test_unknown_path_names_the_nearest(router):
    """With the verb that they need; what the caller sent is shown without control characters."""
    found = router.find("GET", "/v2/model/digits/\x1binfer")
    assert found.text.startswith('nothing is at "/v2/model/digits/\\x1binfer"; the nearest are ')
    assert "POST /v2/models/{model}/infer" in router.find("POST", "/v2/model/digits/infer").text


def test_known_paths_are_bounded(router):
    """Callers that ask for more and more models, or for long ones, take no more memory."""
    for number in range(5000):
        router.find("GET", f"/v2/models/{number}/ready")
    router.find("GET", f"/v2/models/{'x' * 1000}/ready")
    assert len(router._found) <= 1024
    assert not any(len(path) > 512 for _, path in router._found)


def test_path_of_many_segments(router):
    """It is refused without looking at each."""
    assert isinstance(router.find("GET", "/v2" * 5000), NotFound)


def test_form_of_what_is_not_found():
    """Is that of its first segment."""

    def form(status, error):
        return {"status": status, **error}

    router = OperationRouter([("/v1/models", _operation("GET /v1/models"))], {"/v1/a": "no"}, {"v1": form})
    for verb, path in (("GET", "/v1/none"), ("POST", "/v1/models"), ("GET", "/v1/a")):
        found = router.find(verb, path)
        assert isinstance(found, NotFound)
        assert found.error_form is form
    assert router.find("GET", "/v2/none").error_form is not form
