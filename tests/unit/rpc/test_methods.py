"""Lookup and caching of handlers."""

import grpc
import pytest

from inferd.rpc import accept
from inferd.rpc.accept import Methods
from inferd.rpc.interfaces import callback_unary


def handler():
    return callback_unary(lambda call, message: None)


class Counting(grpc.ServiceRpcHandler):
    """A service that counts its lookups."""

    def __init__(self, method, result):
        self.method = method
        self.result = result
        self.asked = 0

    def service_name(self):
        return "x.Y"

    def service(self, details):
        self.asked += 1
        return self.result if details.method == self.method else None


class ByMetadata(grpc.GenericRpcHandler):
    """A generic handler that decides by metadata."""

    def __init__(self, result):
        self.result = result

    def service(self, details):
        return self.result if ("yes", "1") in details.invocation_metadata else None


@pytest.fixture
def methods():
    return Methods()


def look(methods, method):
    """Look up a method as the acceptor does, in the cache first."""
    return methods.cached.get(method) or methods.find(method, ())


def test_caches_handlers_of_services(methods):
    """A service is asked once for each method."""
    service = Counting("/x.Y/Z", handler())
    methods.add_generic([service])
    for _ in range(3):
        assert look(methods, b"/x.Y/Z") == ("/x.Y/Z", service.result)
    assert service.asked == 1


def test_does_not_cache_unknown_methods(methods):
    """Callers can send any number of them."""
    service = Counting("/x.Y/Z", handler())
    methods.add_generic([service])
    for _ in range(3):
        assert look(methods, b"/x.Y/Other") == ("/x.Y/Other", None)
    assert service.asked == 3
    assert methods.cached == {}


def test_does_not_cache_choices_by_metadata(methods):
    """Neither that handler nor any behind it."""
    first, second = ByMetadata(handler()), Counting("/x.Y/Z", handler())
    methods.add_generic([first, second])
    for _ in range(2):
        assert methods.find(b"/x.Y/Z", ()) == ("/x.Y/Z", second.result)
        assert methods.find(b"/x.Y/Z", (("yes", "1"),)) == ("/x.Y/Z", first.result)
    assert methods.cached == {}


def test_cache_is_bounded(methods, monkeypatch):
    """A service with unlimited methods cannot fill the memory."""
    monkeypatch.setattr(accept, "_MAX_CACHED", 1)
    first, second = Counting("/x.Y/A", handler()), Counting("/x.Y/B", handler())
    methods.add_generic([first, second])
    for _ in range(3):
        look(methods, b"/x.Y/A")
        look(methods, b"/x.Y/B")
    assert (first.asked, second.asked) == (1 + 3, 3)


def test_registered_methods_precede_generic_handlers(methods):
    """As in grpcio's server."""
    registered, generic = handler(), handler()
    methods.add_generic([Counting("/x.Y/Z", generic)])
    methods.add_registered("x.Y", {"Z": registered})
    assert methods.find(b"/x.Y/Z", ()) == ("/x.Y/Z", registered)


def test_method_name_may_be_invalid_utf8(methods):
    """Invalid bytes are replaced."""
    assert methods.find(b"/\xff", ()) == ("/�", None)


def test_rejects_objects_that_are_no_handlers(methods):
    """When they are added."""
    with pytest.raises(AttributeError, match=r"expected a grpc\.GenericRpcHandler"):
        methods.add_generic([object()])
