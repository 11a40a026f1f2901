"""Handlers of calls that load, unload and list models, on a fake manager."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import grpc

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api.oip.repository import repository_handlers as oip_handlers
from inferd.api.repository import RepositoryControl
from inferd.api.status import StatusTable
from inferd.api.v1.repository import repository_handlers as v1_handlers
from inferd.errors import ModelControlError
from inferd.models.load_override import LoadOverride
from inferd.models.manager import IndexEntry, OnDone
from inferd.models.states import ModelState
from inferd.security.authorization.policy import Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore
from tests.unit.api.fakes import FakeCall, FakeLargeMessages

CODES = grpc.StatusCode

_OWN_METHODS = {"LoadModel", "UnloadModel", "IndexModels"}

#: The index of the fake manager.
ENTRIES = [
    IndexEntry("broken", "1", ModelState.FAILED, "not an ONNX file"),
    IndexEntry("cold", "1", ModelState.ON_DEMAND),
    IndexEntry("digits", "2", ModelState.READY),
    IndexEntry("digits", "1", ModelState.WARMING),
    IndexEntry("new"),
]


@dataclass
class Asked:
    """What the manager was asked to do."""

    action: str
    name: str
    version: str
    override: LoadOverride | None
    on_done: OnDone
    cancelled: bool = False


class FakeManager:
    """Keeps what it is asked until the test answers."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.entries = ENTRIES

    def load(
        self, name: str, *, version: str = "", override: LoadOverride | None = None, on_done: OnDone
    ) -> Callable[[], None]:
        asked = Asked("load", name, version, override, on_done)
        self.asked.append(asked)
        return lambda: setattr(asked, "cancelled", True)

    def unload(self, name: str, *, version: str = "", on_done: OnDone) -> None:
        self.asked.append(Asked("unload", name, version, None, on_done))

    def index(self) -> list[IndexEntry]:
        assert threading.current_thread() is not threading.main_thread(), "it reads directories"
        return self.entries


class RefusingManager(FakeManager):
    """Is not in explicit mode."""

    def load(self, name: str, **arguments: object) -> Callable[[], None]:
        arguments["on_done"](ModelControlError("not allowed"))
        return lambda: None


class Call(FakeCall):
    """A call that keeps the metadata of its status."""

    def __init__(self) -> None:
        super().__init__()
        self.trailing: dict[str, object] = {}
        self.has_ended = threading.Event()

    def finish(self, *arguments: object) -> bool:
        finished = super().finish(*arguments)
        self.has_ended.set()
        return finished

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: object = ()) -> bool:
        self.trailing = dict(trailing_metadata)
        return super().abort(code, details)


class Bench:
    """Both services on one manager. A caller has the permissions of ``rules``, or all."""

    def __init__(self, *rules: dict[str, object], manager: FakeManager | None = None) -> None:
        self.manager = manager or FakeManager()
        self.large = FakeLargeMessages()
        versions = [SimpleNamespace(name="digits", version="2")]
        self.registry = SimpleNamespace(versions=lambda name: versions if name == "digits" else [])
        self.control = RepositoryControl(self.manager, self.registry, StatusTable(), self.large)
        self._handlers = oip_handlers(self.control) | v1_handlers(
            self.control, self.registry, lambda version: v1.Model(name=version.name, version=version.version)
        )
        self.permissions = None
        if rules:
            policy = Policy.model_validate({"rules": [{"principals": ["*"], **rule} for rule in rules]})
            self.permissions = permissions_of("token:ann", policy, QuotaStore(clock=lambda: 0.0))

    def call(self, method: str, request: object) -> Call:
        call = Call()
        service = "inferd.v1.InferenceService" if method in _OWN_METHODS else "inference.GRPCInferenceService"
        call.method = f"/{service}/{method}"
        if self.permissions is not None:
            call.context.principal, call.context.permissions = "token:ann", self.permissions
        message = request if isinstance(request, bytes) else request.SerializeToString()
        self._handlers[method].callback(call, message)
        self.large.call_soon.run()
        return call

    def load(self, model: str = "digits", **fields: object) -> Call:
        return self.call("LoadModel", v1.LoadModelRequest(model=model, **fields))

    def triton_load(self, model: str = "digits", **parameters: object) -> Call:
        named = {name: oip.ModelRepositoryParameter(**value) for name, value in parameters.items()}
        return self.call("RepositoryModelLoad", oip.RepositoryModelLoadRequest(model_name=model, parameters=named))
