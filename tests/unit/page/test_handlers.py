"""The operations of the page: what each caller sees and may do, and how wrong requests end."""

from types import SimpleNamespace

import grpc
import numpy as np
import orjson
import pytest

from inferd.api.status import StatusTable
from inferd.config.repository import ModelControl
from inferd.config.routing import RoutingSettings
from inferd.config.settings import ModelSettings
from inferd.dtypes import BY_NAME
from inferd.http.messages import HttpMessage
from inferd.http.router import OperationRouter
from inferd.models.load_meter import Measured
from inferd.models.loaded import LoadedModel
from inferd.models.registry import ModelRegistry
from inferd.models.residency import Memory
from inferd.models.router import Router
from inferd.models.states import ModelState
from inferd.models.version import ModelVersion
from inferd.observability.metrics.models import Activity
from inferd.page import routes
from inferd.page.handlers import StatusPage, switched_off
from inferd.page.sampler import CounterSources
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.runtime.signature import ModelSignature, TensorSpec
from inferd.security.authorization.methods import KNOWN_METHODS, MethodKind, kind_of
from inferd.security.authorization.policy import Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore
from tests.patience import PATIENCE_S
from tests.unit.api.repository_bench import Call
from tests.unit.models.language_versions import language_version

CODES = grpc.StatusCode
HOSTILE = "<img src=x onerror=alert(1)>"
SIGNATURE = ModelSignature(
    inputs=(TensorSpec(name="x", datatype=BY_NAME["FP32"], shape=("rows", 2), batch_axis=0),),
    outputs=(TensorSpec(name="y", datatype=BY_NAME["FP32"], shape=("rows", None), batch_axis=0, labels=("a", "b")),),
    batchable=True,
)
RECORDED = tuple({"x": np.array([[value, 0.1]], np.float32)} for value in (1.5, 2.5))


def _version(name: str, version: str, state: ModelState = ModelState.READY, examples=RECORDED) -> ModelVersion:
    made = ModelVersion(name=name, version=version, settings=ModelSettings())
    if state is ModelState.READY:
        inputs = SyntheticInputs(signature=SIGNATURE, shapes={"x": (1, 2)}, examples=examples)
        verdict = Verdict(standing=Standing.CONTRADICTED, reason="rows differ")
        session = SimpleNamespace(signature=SIGNATURE, verdict=verdict, providers=("CPU",), synthetic_inputs=inputs)
        batcher = SimpleNamespace(why_broken="", max_rows=8, statistics=lambda: None)
        made.state = ModelState.WARMING
        made.mark_ready(
            LoadedModel(session=session, batcher=batcher, measured=Measured(load_s=0.5), memory=Memory(1000))
        )
    made.state = state
    return made


class Bench:
    """A page of two models, of which one caller may see what ``rules`` allow, or everything."""

    def __init__(self, *rules: dict[str, object]) -> None:
        self.registry = ModelRegistry()
        for each in (
            _version("digits", "1"),
            _version("digits", "2"),
            _version(HOSTILE, "1", examples=()),
            _version("cold", "1", ModelState.ON_DEMAND),
        ):
            self.registry.add(each)
        self.answered = {"digits": 0, HOSTILE: 0}
        self.router = Router(self.registry, lambda *_: None)
        self.page = StatusPage(
            registry=self.registry,
            router=self.router,
            statuses=StatusTable(),
            sources=CounterSources(
                activity=lambda: {
                    (name, "1"): Activity(count, 0, 0, count, count, (0,) * 12) for name, count in self.answered.items()
                },
                answered=dict,
                models=list,
                cpu_s=float,
                resident_bytes=int,
                usage=lambda: SimpleNamespace(held_bytes=0),
                open_calls=int,
                gpus=list,
            ),
            control=ModelControl.EXPLICIT,
            is_ready=lambda: True,
        )
        self.operations = OperationRouter(self.page.operations())
        self.permissions = None
        if rules:
            policy = Policy.model_validate({"rules": [{"principals": ["*"], **rule} for rule in rules]})
            self.permissions = permissions_of("token:ann", policy, QuotaStore(clock=lambda: 0.0))

    def call(self, operation: str, body: bytes = b"", path: dict[str, str] | None = None, **query: str) -> Call:
        """Call an operation, and wait for its end."""
        call = Call()
        call.method = operation
        if self.permissions is not None:
            call.context.principal, call.context.permissions = "token:ann", self.permissions
        verb, template = operation.split(" ")
        found = self.operations.find(verb, template)
        found.operation.handler(call, HttpMessage(body, path=path or {}, query=query))
        assert call.has_ended.wait(PATIENCE_S)
        return call

    def status(self, **query: str) -> dict[str, object]:
        return _content(self.call(routes.STATUS, **query))

    def label(self, content: object) -> Call:
        return self.call(routes.LABELS, orjson.dumps(content), {"model": "digits"})

    def sample(self) -> None:
        self.page._sampler.sample()


def _content(call: Call) -> dict[str, object]:
    assert call.ended == (CODES.OK, "")
    return orjson.loads(bytes(call.sent[0]))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_status_describes_models_and_server(bench):
    """Names come as they are: the page only ever shows them as text."""
    status = bench.status()
    assert status["server"]["ready"] is True
    assert (status["server"]["control"], status["server"]["may_control"]) == ("explicit", True)
    by_name = {model["name"]: model for model in status["models"]}
    assert list(by_name) == sorted(["cold", "digits", HOSTILE])
    digits = by_name["digits"]
    assert [version["version"] for version in digits["versions"]] == ["2", "1"]
    version = digits["versions"][0]
    assert (version["state"], version["verdict"], version["verdict_reason"]) == ("ready", "contradicted", "rows differ")
    assert version["inputs"][0]["shape"] == ["rows", 2]
    assert version["outputs"][0]["shape"] == ["rows", None]
    assert version["outputs"][0]["labels"] == ["a", "b"]
    assert (digits["may_infer"], digits["may_control"]) == (True, True)
    assert by_name["cold"]["versions"][0]["inputs"] == []


def test_status_describes_language_models(bench):
    """What they take, in place of inputs and outputs."""
    bench.registry.add(language_version(has_chat_template=False))
    found = {model["name"]: model for model in bench.status()["models"]}
    (version,) = found["lm"]["versions"]
    assert (version["inputs"], version["outputs"], version["max_batch_size"]) == ([], [], 4)
    assert version["generation"] == {
        "context_length": 128,
        "max_sequences": 4,
        "cache_bytes": 4096,
        "has_tokenizer": True,
        "has_chat_template": False,
    }
    assert found["digits"]["versions"][0]["generation"] is None


def test_models_are_sent_again_only_if_they_have_changed(bench):
    """By the digest of the last answer."""
    first = bench.status()
    assert bench.status(digest=first["digest"])["models"] is None
    bench.router.change("digits", RoutingSettings(labels={"stable": "1"}))
    second = bench.status(digest=first["digest"])
    assert second["digest"] != first["digest"]
    assert {model["name"]: model["labels"] for model in second["models"]}["digits"] == {"stable": "1"}


def test_history_since_the_last_answer(bench):
    """The page asks for what it does not have yet."""
    bench.sample()
    bench.answered["digits"] = 30
    bench.sample()
    bench.sample()
    history = bench.status()["history"]
    assert history["last"] == 2
    assert [value > 0 for value in history["answered"]] == [True, False]
    assert bench.status(since="1")["history"]["answered"] == [0]
    of_model = _content(bench.call(routes.HISTORY, path={"model": "digits"}, since="0"))
    assert (of_model["model"], of_model["answered"]) == ("digits", history["answered"])


def test_callers_see_models_and_numbers_that_rules_allow():
    """Of other models neither names nor traffic, and no reason to think that they exist."""
    bench = Bench({"models": ["digits"], "methods": ["metadata"]})
    bench.sample()
    bench.answered[HOSTILE] = 1000
    bench.sample()
    status = bench.status()
    assert [model["name"] for model in status["models"]] == ["digits"]
    assert (status["models"][0]["may_infer"], status["models"][0]["may_control"]) == (False, False)
    assert status["server"]["may_control"] is False
    assert (status["history"]["answered"], status["recent"]) == ([0], {})
    for operation in (routes.HISTORY, routes.EXAMPLE):
        refused = bench.call(operation, path={"model": HOSTILE})
        assert refused.ended[0] is CODES.NOT_FOUND
        assert refused.ended == (CODES.NOT_FOUND, f'there is no model "{HOSTILE}"')


def test_examples_are_for_those_who_may_call_the_model():
    """Recorded requests may be somebody's data."""
    reader = Bench({"methods": ["metadata"]})
    assert reader.call(routes.EXAMPLE, path={"model": "digits"}).ended[0] is CODES.PERMISSION_DENIED
    caller = Bench({"methods": ["metadata", "infer"]})
    assert caller.call(routes.EXAMPLE, path={"model": "digits"}).ended[0] is CODES.OK


def test_examples_are_recorded_requests_or_such_as_the_model_is_known_to_take(bench):
    """In the JSON of the protocol, with the digits of their type."""
    second = _content(bench.call(routes.EXAMPLE, path={"model": "digits"}, version="1", number="1"))
    assert (second["version"], second["recorded"], second["elements"]) == ("1", 2, 2)
    assert second["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [2.5, 0.1]}]
    synthetic = _content(bench.call(routes.EXAMPLE, path={"model": HOSTILE}))
    assert (synthetic["recorded"], len(synthetic["inputs"][0]["data"])) == (0, 2)


@pytest.mark.parametrize(
    ("path", "query", "code", "text"),
    [
        ("digits", {"number": "2"}, CODES.INVALID_ARGUMENT, "number: expected 0 to 1, got 2"),
        ("digits", {"number": "-1"}, CODES.INVALID_ARGUMENT, 'number: expected a number, got "-1"'),
        ("digits", {"number": "1" * 400}, CODES.INVALID_ARGUMENT, "number: expected a number"),
        ("digits", {"version": "7"}, CODES.NOT_FOUND, 'has no version "7"'),
        ("none", {}, CODES.NOT_FOUND, 'there is no model "none"'),
        ("cold", {}, CODES.UNAVAILABLE, "is on demand"),
    ],
)
def test_wrong_requests_for_examples(bench, path, query, code, text):
    """The status and text of each."""
    call = bench.call(routes.EXAMPLE, path={"model": path}, **query)
    assert call.ended[0] is code
    assert text in call.ended[1]


def test_labels_change_alone(bench):
    """The other labels, weights and the shadow stay as they are."""
    bench.router.change("digits", RoutingSettings(labels={"stable": "1"}, weights={"stable": 2, "2": 1}))
    assert _content(bench.label({"label": "canary", "version": "2"}))["labels"] == {"stable": "1", "canary": "2"}
    assert _content(bench.label({"label": "canary", "version": None}))["labels"] == {"stable": "1"}
    assert bench.router.routing("digits").weights == {"stable": 2, "2": 1}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"label": "stable", "version": "9"}, "expected a version that is ready"),
        ({"label": "7", "version": "1"}, "expected labels that are not numbers"),
        ({"label": "", "version": "1"}, 'label: expected a text that is not empty, got ""'),
        ({"label": "stable", "version": 1}, "or null, got 1"),
        ({"label": "stable", "weights": {}}, "and nothing else, got label, weights"),
        ([], "and nothing else, got an array"),
    ],
)
def test_wrong_labels_change_nothing(bench, content, text):
    """The error says what was expected."""
    call = bench.label(content)
    assert call.ended[0] is CODES.INVALID_ARGUMENT
    assert text in call.ended[1]
    assert bench.router.routing("digits").labels == {}


def test_label_in_use_cannot_be_removed(bench):
    """A weight names it."""
    bench.router.change("digits", RoutingSettings(labels={"stable": "1"}, weights={"stable": 1}))
    call = bench.label({"label": "stable", "version": None})
    assert call.ended[0] is CODES.INVALID_ARGUMENT
    assert "got stable" in call.ended[1]


def test_labels_are_for_administrators():
    """A caller without the right changes nothing."""
    bench = Bench({"methods": ["metadata", "infer"]})
    assert bench.label({"label": "stable", "version": "1"}).ended[0] is CODES.PERMISSION_DENIED
    assert bench.router.routing("digits").labels == {}


def test_requests_for_data_are_charged():
    """As other queries are; a caller that asks too often is refused with a hint."""
    bench = Bench({"methods": ["metadata"], "quota": {"requests_per_s": 0.001}})
    codes = [bench.call(routes.STATUS).ended[0] for _ in range(2)]
    assert codes == [CODES.OK, CODES.RESOURCE_EXHAUSTED]


def test_data_is_never_kept_by_browsers(bench):
    """Nor by proxies; and is taken for nothing but JSON."""
    headers = dict(bench.call(routes.STATUS).sent[0].headers)
    assert headers["Cache-Control"] == "no-store"
    assert (headers["Content-Type"], headers["X-Content-Type-Options"]) == ("application/json", "nosniff")


def test_files_need_no_rights():
    """They hold no data."""
    bench = Bench({"models": ["none"]})
    page = bench.call(routes.INDEX)
    assert page.sent[0].status == 200
    assert b"digits" not in page.sent[0]
    assert bench.call(routes.FILE, path={"file": "main.js"}).sent[0].status == 200


def test_page_that_is_switched_off_says_so():
    """404 with a sentence."""
    (found,) = switched_off()
    call = Call()
    found[1].handler(call, HttpMessage(b""))
    assert (found[0], call.sent[0].status) == ("/", 404)
    assert b"server.http.status_page" in call.sent[0]


def test_every_operation_has_a_kind():
    """What it shows is for those who may see the models; files are open to all."""
    assert set(routes.OPERATIONS) <= KNOWN_METHODS
    kinds = {operation: kind_of(operation) for operation in routes.OPERATIONS}
    assert kinds == {
        routes.INDEX: MethodKind.PAGE,
        routes.FILE: MethodKind.PAGE,
        routes.STATUS: MethodKind.METADATA,
        routes.HISTORY: MethodKind.METADATA,
        routes.EXAMPLE: MethodKind.METADATA,
        routes.LABELS: MethodKind.ADMIN,
    }
