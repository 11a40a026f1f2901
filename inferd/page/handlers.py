"""The operations of the status page: static files for all, and data that depends on the caller's permissions."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import orjson

import inferd
from inferd.api.admission import ModelView
from inferd.api.json_text import kind_of, shown
from inferd.api.status import StatusTable, abort
from inferd.api.unary import run_guarded
from inferd.api.v1.routing import change_routing, routing_settings
from inferd.config.repository import ModelControl
from inferd.errors import InvalidInputError, OverloadedError, ServingError
from inferd.http.messages import HttpBody, HttpHandler, HttpMessage, Operation
from inferd.models.registry import ModelRegistry
from inferd.models.router import Router
from inferd.page import routes
from inferd.page.assets import SAFE_HEADERS, Assets
from inferd.page.examples import example_of
from inferd.page.history import History
from inferd.page.models import described_models
from inferd.page.sampler import INTERVAL_S, KEPT_S, CounterSources, Sampler
from inferd.page.series import model_series, recent_figures, server_series
from inferd.plain_text import clipped, listed
from inferd.rpc import UnaryCall
from inferd.rpc.worker_pool import WorkerPool
from inferd.security.authorization.methods import MethodKind

_DATA_HEADERS = (("Content-Type", "application/json"), ("Cache-Control", "no-store"), *SAFE_HEADERS)

_OFF = HttpBody(
    b"The status page is switched off: server.http.status_page is false.\n",
    (("Content-Type", "text/plain; charset=utf-8"), *SAFE_HEADERS),
    status=404,
)

#: Requests for data that may wait for the page's thread.
_MAX_WAITING = 32
_RETRY_AFTER_S = 1.0

#: Intervals that the numbers in the list of models average.
_RECENT = 5

#: No request of the page is larger.
_MAX_BODY_BYTES = 4096


#: Returns the content of an answer, or raises `ServingError`.
Respond = Callable[[ModelView, HttpMessage], Any]


def switched_off() -> Iterator[tuple[str, Operation]]:
    """Yield the operations of a page that is switched off, as `StatusPage.operations`."""
    yield _operation(routes.INDEX, lambda call, _: _reply(call, _OFF))


class StatusPage:
    """The page of one server.

    Threads: handlers the poll thread, the rest the main thread. Data is collected in a thread of the page, because that
    takes milliseconds with many models.
    """

    def __init__(
        self,
        *,
        registry: ModelRegistry,
        router: Router,
        statuses: StatusTable,
        sources: CounterSources,
        control: ModelControl,
        is_ready: Callable[[], bool],
    ) -> None:
        self._registry = registry
        self._router = router
        self._statuses = statuses
        self._control = control
        self._is_ready = is_ready
        self._sampler = Sampler(sources)
        self._assets = Assets()
        self._threads = WorkerPool("inferd-page", threads=1, max_waiting=_MAX_WAITING)

    def operations(self) -> Iterator[tuple[str, Operation]]:
        """Yield each operation with the template of its path, for a router."""
        yield _operation(routes.INDEX, self._assets.index)
        yield _operation(routes.FILE, self._assets.file)
        yield _operation(routes.STATUS, partial(self._answer, self._status))
        yield _operation(routes.HISTORY, partial(self._answer, self._model_history))
        yield _operation(routes.EXAMPLE, partial(self._answer, self._example))
        yield _operation(routes.LABELS, partial(self._answer_now, self._label))

    def start(self) -> None:
        """Start sampling."""
        self._sampler.start()

    def stop(self, timeout_s: float) -> bool:
        """End the threads. Return False if one is still busy after the timeout."""
        self._sampler.stop()
        return self._threads.stop(timeout_s)

    @property
    def _history(self) -> History:
        return self._sampler.history

    def _answer(self, respond: Respond, call: UnaryCall, message: HttpMessage) -> None:
        """Charge ``call`` to its caller's quota, and answer it on the page's thread."""
        view = ModelView(self._registry, call)
        try:
            view.charge(message.path.get("model"))
            if not self._threads.submit(partial(self._answer_now, respond, call, message, view)):
                text = f"{_MAX_WAITING} requests for the status page wait"
                raise OverloadedError(text, retry_after_s=_RETRY_AFTER_S, reason="STATUS_PAGE")
        except ServingError as error:
            abort(call, self._statuses, error)

    def _answer_now(
        self, respond: Respond, call: UnaryCall, message: HttpMessage, view: ModelView | None = None
    ) -> None:
        """Answer ``call`` on this thread, with an error status if that fails."""

        def answer() -> None:
            content = respond(view or ModelView(self._registry, call), message)
            body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
            _reply(call, HttpBody(body, _DATA_HEADERS))

        run_guarded(call, self._statuses, answer)

    def _status(self, view: ModelView, message: HttpMessage) -> dict[str, Any]:
        """Return the data of the server; the models only if they differ from the page's ``digest``."""
        models = described_models(view, self._router.routing)
        digest = hashlib.sha256(orjson.dumps(models)).hexdigest()[:16]
        intervals = self._history.since(_number(message.query, "since"))
        recent = self._history.since(0)[-_RECENT:]
        visible = None if view.sees_everything else partial(view.allows, MethodKind.METADATA)
        return {
            "server": {
                "version": inferd.__version__,
                "ready": self._is_ready(),
                "principal": view.principal,
                "control": self._control.value,
                "may_control": view.may_call(MethodKind.ADMIN),
                "interval_s": INTERVAL_S,
                "kept_s": KEPT_S,
            },
            "digest": digest,
            "models": None if message.query.get("digest") == digest else models,
            "recent": recent_figures(recent, visible),
            "history": {"last": intervals[-1].number if intervals else 0, **server_series(intervals, visible)},
        }

    def _model_history(self, view: ModelView, message: HttpMessage) -> dict[str, Any]:
        """Return the series of one model."""
        name = view.find(message.path["model"], "").name
        intervals = self._history.since(_number(message.query, "since"))
        return {"model": name, "last": intervals[-1].number if intervals else 0, **model_series(intervals, name)}

    def _example(self, view: ModelView, message: HttpMessage) -> dict[str, Any]:
        """Return an example request, which may be a recorded one, to those who may call the model."""
        version = view.find(message.path["model"], message.query.get("version", ""))
        view.require(MethodKind.INFER, version.name)
        return example_of(version, _number(message.query, "number"))

    def _label(self, view: ModelView, message: HttpMessage) -> dict[str, Any]:
        """Set a label or remove it; on the poll thread, so that no concurrent change is lost."""
        name = view.visible(message.path["model"])
        view.require(MethodKind.ADMIN, name)
        label, version = _label_of(message.body)
        routing = self._router.routing(name).model_dump(exclude_none=True)
        labels = {each: number for each, number in routing["labels"].items() if each != label}
        if version:
            labels[label] = version
        settings = routing_settings({**routing, "labels": labels})
        change_routing(self._router, name, settings, principal=view.principal)
        return {"labels": settings.labels}


def _operation(method: str, handler: HttpHandler) -> tuple[str, Operation]:
    return method.partition(" ")[2], Operation(method=method, handler=handler, max_body_bytes=_MAX_BODY_BYTES)


def _reply(call: UnaryCall, body: HttpBody) -> None:
    call.reply(body)


def _number(query: Mapping[str, str], name: str) -> int:
    """Return a number of the query, 0 without it. Raises `InvalidInputError`."""
    text = query.get(name, "0")
    if not (text.isascii() and text.isdecimal()) or len(text) > 15:
        raise InvalidInputError(f'{name}: expected a number, got "{clipped(text)}"', field=name)
    return int(text)


def _label_of(body: bytes | bytearray) -> tuple[str, str]:
    """Return label and version of a request; "" removes the label. Raises `InvalidInputError`."""
    try:
        content = orjson.loads(body)
    except ValueError:
        raise InvalidInputError("expected a JSON object with label and version, got other bytes") from None
    if not isinstance(content, dict) or set(content) - {"label", "version"}:
        got = listed(content) if isinstance(content, dict) else kind_of(content)
        raise InvalidInputError(f"expected a JSON object with label and version, and nothing else, got {got}")
    label, version = content.get("label"), content.get("version")
    if not isinstance(label, str) or not label:
        raise InvalidInputError(f"label: expected a text that is not empty, got {shown(label)}", field="label")
    if version is not None and not isinstance(version, str):
        text = f"version: expected the number of a version as text, or null, got {shown(version)}"
        raise InvalidInputError(text, field="version")
    return label, version or ""
