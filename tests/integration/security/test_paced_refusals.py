"""Refusals that come together, and are answered one after another."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc

from inferd._generated.inference import grpc_service_pb2_grpc as oip_grpc
from tests.integration.security.calls import TIMEOUT_S, oip_request
from tests.integration.security.conftest import Secured
from tests.integration.security.test_rest import INFER, ask, bearer

#: More than may wait.
_CALLS = 400


def test_answers_each_of_many_refused_calls(secured: Secured) -> None:
    """Those that wait, and those that are answered at once."""
    with secured.channel() as channel:
        call = oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer
        metadata = secured.bearer("inferd_unknown")
        calls = [call.future(oip_request("digits"), metadata=metadata, timeout=TIMEOUT_S) for _ in range(_CALLS)]
        codes = Counter(each.exception().code() for each in calls)
    assert codes == {grpc.StatusCode.UNAUTHENTICATED: _CALLS}


def test_answers_each_of_many_refused_requests(secured: Secured) -> None:
    """Over HTTP, where the connection takes the next request only after the answer."""
    with ThreadPoolExecutor(32) as threads:
        statuses = Counter(threads.map(lambda _: ask(secured, INFER, bearer("inferd_unknown"))[0], range(128)))
    assert statuses == {401: 128}
