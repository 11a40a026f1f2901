"""Arbitrary metadata over real sockets."""

import string

import grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.security.calls import ABOUT_A_MODEL
from tests.integration.security.conftest import Secured
from tests.issuer import Issuer
from tests.patience import PATIENCE_S

_PRINTABLE = "".join(character for character in string.printable if character.isprintable())

keys = st.text(string.ascii_lowercase + string.digits + "-_.", min_size=1, max_size=20).filter(
    lambda key: not key.startswith(("grpc-", ":")) and not key.endswith("-bin")
)
texts = st.text(_PRINTABLE, max_size=200)
tokens = st.one_of(
    texts,
    st.tuples(texts, texts, texts).map(".".join),
    st.sampled_from([Issuer().token(), Issuer().unsigned(), "inferd_" + "a" * 43]),
)
pairs = st.one_of(
    st.tuples(keys, texts),
    st.tuples(st.just("authorization"), texts | tokens.map("Bearer {}".format)),
    st.tuples(keys.map("{}-bin".format), st.binary(max_size=200)),
)
methods = st.one_of(
    st.sampled_from(["/inferd.v1.InferenceService/Infer", "/inferd.v1.InferenceService/StreamInfer", "/", "//", "x"]),
    st.text(string.ascii_letters + "/.", max_size=60),
)


def test_rejects_arbitrary_metadata(secured: Secured) -> None:
    """For calls of existing and other methods; the log has no errors but access lines."""
    with secured.channel() as channel:

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(method=methods, metadata=st.lists(pairs, max_size=4), message=st.binary(max_size=20))
        def call(method: str, metadata: list, message: bytes) -> None:
            sent = channel.stream_stream(method)(iter([message]), metadata=metadata, timeout=PATIENCE_S)
            assert sent.code() is grpc.StatusCode.UNAUTHENTICATED, sent.details()

        call()
        alice = secured.bearer("inferd_alice")
        assert ABOUT_A_MODEL[0].call(channel, "digits", alice)[0] is grpc.StatusCode.OK
    assert "Traceback" not in secured.server.text
    assert not [line for line in secured.server.log if '"level":"error"' in line and '"event":"access"' in line]
