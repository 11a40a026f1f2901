"""A server under a load that shows in every metric, with a Prometheus that scrapes it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import yaml

from inferd import demo
from inferd._generated.inferd.v1 import generation_pb2
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd.security.authentication.bearer_tokens import StoredToken, format_entry, hash_token
from tests.certificates import LOCAL_NAMES, Authority
from tests.decoder_models import write_tiny_decoder
from tests.load import add_model, array, busy_model, request
from tests.patience import PATIENCE_S
from tests.prometheus import Prometheus, scraping
from tests.server import ServerProcess, serving

#: A few callers overload its short queue and long runs.
_SLOW = {"queue": {"max_rows": 4, "max_delay_ms": 50}, "batching": {"max_batch_size": 2}}
_SLOW_TURNS = 600

#: As many callers of a language model as it has places, and one more.
_GENERATION = {"generation": {"max_sequences": 2}}
_GENERATING = 3

#: Two callers, one of them with few permissions.
_TOKENS = {"all": "inferd_all", "few": "inferd_few"}
_POLICY = """
rules:
  - {principals: ["*:all"], methods: [infer, metadata]}
  - {principals: ["*:few"], methods: [infer], quota: {requests_per_s: 2}}
"""

_BETWEEN_CALLS_S = 0.01

#: Statuses of calls besides OK.
_MISHAPS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}


class Observed:
    """The server and its callers."""

    def __init__(self, server: ServerProcess, authority: Authority) -> None:
        self.server = server
        self._authority = authority

    def channel(self) -> grpc.Channel:
        """Open a new connection."""
        credentials = grpc.ssl_channel_credentials(self._authority.pem)
        return grpc.secure_channel(self.server.grpc, credentials, [("grpc.use_local_subchannel_pool", 1)])

    @contextmanager
    def load(self, *, callers: int, flood: int) -> Iterator[None]:
        """Call from threads in loops: the three models, and with several kinds of invalid calls."""
        stopping = threading.Event()
        with self.channel() as channel:
            stub = InferenceServiceStub(channel)
            jobs = [_quick(stub)] * callers + [_slow(stub)] * flood
            jobs += [_generate(GenerationServiceStub(channel))] * _GENERATING
            jobs += [_mistake(stub), _stream(stub), _quick(stub, "few"), _quick(stub, "nobody")]
            threads = [threading.Thread(target=_repeat, args=(job, stopping)) for job in jobs]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                stopping.set()
                for thread in threads:
                    thread.join(PATIENCE_S)


@contextmanager
def observed(folder: Path, *, callers: int = 4, flood: int = 12) -> Iterator[tuple[Observed, Prometheus]]:
    """Serve three models, one of them a language model, under load, with TLS, tokens and quotas.

    The metrics port has no TLS, as in most clusters.
    """
    models, data = folder / "models", folder / "prometheus"
    data.mkdir()
    add_model(models, "slow", busy_model(), _SLOW)
    write_tiny_decoder(models / "language" / "1")
    (models / "language" / "model.yaml").write_text(yaml.safe_dump(_GENERATION))
    authority = Authority()
    with ExitStack() as stack:
        server = stack.enter_context(serving(demo.repository(), models, *_settings(folder, authority)))
        watched = Observed(server, authority)
        stack.enter_context(watched.load(callers=callers, flood=flood))
        yield watched, stack.enter_context(scraping(data, server.http))


def bearer(name: str = "all") -> list[tuple[str, str]]:
    """Return the metadata of a caller; an unknown caller has an invalid token."""
    return [("authorization", f"Bearer {_TOKENS.get(name, 'inferd_unknown')}")]


def _settings(folder: Path, authority: Authority) -> list[str]:
    files = authority.issue(*LOCAL_NAMES).save(folder)
    entries = [
        format_entry(StoredToken(name=name, sha256=hash_token(token), expires=None)) for name, token in _TOKENS.items()
    ]
    (folder / "tokens.yaml").write_text("".join(entries))
    (folder / "policy.yaml").write_text(_POLICY)
    settings = {
        "log.access": "false",
        "repository.memory_budget_bytes": str(2**32),
        # Without a collector: sampled calls are enough.
        "tracing.endpoint": "http://127.0.0.1:1",
        "tracing.sampling_ratio": "0.05",
        "security.tls.cert_file": files.certificate,
        "security.tls.key_file": files.key,
        "security.metrics_tls": "false",
        "security.tokens_file": folder / "tokens.yaml",
        "security.policy_file": folder / "policy.yaml",
    }
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


def _repeat(job: Callable[[], object], stopping: threading.Event) -> None:
    while not stopping.wait(_BETWEEN_CALLS_S):
        try:
            job()
        except grpc.RpcError as error:
            if error.code() not in _MISHAPS:
                raise


def _digits(rows: int = 1) -> v1.InferRequest:
    x = np.zeros((rows, 64), np.float32)
    return v1.InferRequest(model="digits", inputs=[v1.Tensor(name="X", shape=x.shape, raw=x.tobytes())])


def _quick(stub: InferenceServiceStub, caller: str = "all") -> Callable[[], object]:
    return lambda: stub.Infer(_digits(), timeout=PATIENCE_S, metadata=bearer(caller))


def _slow(stub: InferenceServiceStub) -> Callable[[], object]:
    x = array(1, turns=_SLOW_TURNS)
    return lambda: stub.Infer(request("slow", x), timeout=PATIENCE_S, metadata=bearer())


def _generate(stub: GenerationServiceStub) -> Callable[[], object]:
    prompt = generation_pb2.Prompt(text="The capital of France is")
    message = generation_pb2.GenerateRequest(model="language", prompt=prompt, max_tokens=8)
    return lambda: list(stub.Generate(message, timeout=PATIENCE_S, metadata=bearer()))


def _mistake(stub: InferenceServiceStub) -> Callable[[], object]:
    return lambda: stub.Infer(request("digits", array(1)), timeout=PATIENCE_S, metadata=bearer())


def _stream(stub: InferenceServiceStub) -> Callable[[], object]:
    message = v1.StreamInferRequest(requests=[_digits(2) for _ in range(8)])
    return lambda: list(stub.StreamInfer(iter([message] * 4), timeout=PATIENCE_S, metadata=bearer()))
