"""The service of the REST form: its operations and their handlers."""

from collections.abc import Iterator

from inferd.api.generation.bodies import MAX_BODY_BYTES
from inferd.api.generation.generations import Generations
from inferd.api.handler_resources import HandlerResources
from inferd.api.oip.queries import OpenInferenceQueries
from inferd.api.repository import RepositoryControl
from inferd.api.rest import routes
from inferd.api.rest.decoder import RestDecoder
from inferd.api.rest.generate import Generate
from inferd.api.rest.queries import RestQuery, rest_queries
from inferd.api.rest.repository import repository_handlers
from inferd.api.unary import UnaryInference, query_answerer
from inferd.http.messages import HttpHandler, Operation

#: Bodies of queries hold a few names; those of loads may hold files, and are limited as those of inference.
MAX_QUERY_BYTES = 64 * 1024
_WITH_LARGE_BODIES = frozenset({routes.INFER, routes.LOAD})
_GENERATION_LIMITS = dict.fromkeys((routes.GENERATE, routes.GENERATE_STREAM), MAX_BODY_BYTES)


class RestService:
    """Handlers of the operations, for clients of Triton and KServe over HTTP."""

    def __init__(
        self,
        resources: HandlerResources,
        control: RepositoryControl,
        answers: OpenInferenceQueries,
        generations: Generations,
    ) -> None:
        self._resources = resources
        self._generate = Generate(resources, generations)
        self._control = control
        self._answers = answers

    def operations(self, max_body_bytes: int) -> Iterator[tuple[str, Operation]]:
        """Yield each operation with each template of its paths; bodies above ``max_body_bytes`` are refused."""
        for method, handler in self._handlers().items():
            most = max_body_bytes
            if method not in _WITH_LARGE_BODIES:
                most = min(most, _GENERATION_LIMITS.get(method, MAX_QUERY_BYTES))
            operation = Operation(method=method, handler=handler, max_body_bytes=most)
            for path in routes.PATHS[method]:
                yield path, operation

    def _handlers(self) -> dict[str, HttpHandler]:
        resources = self._resources
        decoder = RestDecoder(resources.limits)
        return {
            routes.INFER: UnaryInference(
                decoder, resources.registry, resources.statuses, resources.large_messages, resources.waits
            ),
            routes.GENERATE: self._generate.handler(streams=False),
            routes.GENERATE_STREAM: self._generate.handler(streams=True),
            **{query.operation: self._query_handler(query) for query in rest_queries(self._answers)},
            **repository_handlers(self._control),
        }

    def _query_handler(self, query: RestQuery) -> HttpHandler:
        resources = self._resources
        waits = resources.waits if query.waits else None
        return query_answerer(query.respond, resources.registry, resources.statuses, name_field="model", waits=waits)
