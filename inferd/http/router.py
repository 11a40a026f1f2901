"""Find the operation for a verb and a path."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

from inferd.http.messages import ErrorForm, Found, NotFound, Operation, own_form
from inferd.plain_text import quoted

#: Paths in the cache, and the longest of them: names of models are shorter.
_CACHED_PATHS = 1024
_CACHED_CHARACTERS = 512

#: Number of operations that the answer to an unknown path names.
_NEAREST = 3

_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_FORMS: Mapping[str, ErrorForm] = MappingProxyType({})


@dataclass(slots=True)
class _Node:
    """A prefix of paths: its operations by verb, the nodes of next segments, and that of a parameter.

    ``absent`` says why there are no operations, where callers may expect some.
    """

    absent: str = ""
    operations: dict[str, Operation] = field(default_factory=dict)
    next: dict[str, "_Node"] = field(default_factory=dict)
    parameter: "tuple[str, _Node] | None" = None


class OperationRouter:
    """Finds operations by the templates of their paths, such as ``/v2/models/{model}/infer``.

    A literal segment of a template takes precedence over a parameter. A trailing slash is ignored, and ``HEAD`` is
    served as ``GET``. Any thread.
    """

    def __init__(
        self,
        table: Iterable[tuple[str, Operation]],
        absent: Mapping[str, str] = _NOTHING,
        error_forms: Mapping[str, ErrorForm] = _NO_FORMS,
    ) -> None:
        """``table`` has pairs of a template and its operation; an operation may have several templates.

        ``absent`` has the templates of other servers' operations, with the text for callers. ``error_forms`` has the
        form of errors for paths that are not found, by the first segment.
        """
        self._error_forms = error_forms
        self._root = _Node()
        self._templates: dict[str, tuple[str, ...]] = {}
        self._found: dict[tuple[str, str], Found] = {}
        for template, operation in table:
            verb = operation.method.partition(" ")[0]
            self._node(template).operations[verb] = operation
            self._templates[f"{verb} {template}"] = _segments(template)
        for template, text in absent.items():
            self._node(template).absent = text

    def find(self, verb: str, path: str) -> Found | NotFound:
        """Return the operation for ``verb`` and ``path``, which is percent-encoded and has no query."""
        known = self._found.get((verb, path))
        return self._search(verb, path) if known is None else known

    def _search(self, verb: str, path: str) -> Found | NotFound:
        segments = _segments(path)
        form = self._error_forms.get(segments[0], own_form)
        ends = [
            (node, values) for node, given in _walk(self._root, segments) if (values := _decoded(given)) is not None
        ]
        for node, values in ends:
            operation = node.operations.get("GET" if verb == "HEAD" else verb)
            if operation is not None:
                found = Found(operation, values)
                self._cache(verb, path, found)
                return found
        for node, _ in ends:
            if node.absent:
                return NotFound(node.absent, error_form=form)
        allowed = _allowed({each for node, _ in ends for each in node.operations})
        if allowed:
            text = f"expected {' or '.join(allowed)} for {quoted(path)}, got {quoted(verb)}"
            return NotFound(text, allowed, form)
        nearest = ", ".join(self._nearest(segments))
        return NotFound(f"nothing is at {quoted(path)}; the nearest are {nearest}", error_form=form)

    def _cache(self, verb: str, path: str, found: Found) -> None:
        if len(path) > _CACHED_CHARACTERS:
            return
        if len(self._found) >= _CACHED_PATHS:
            self._found.clear()
        self._found[verb, path] = found

    def _node(self, template: str) -> _Node:
        """Return the node of ``template``; create it if it does not exist."""
        node = self._root
        for segment in _segments(template):
            if segment.startswith("{"):
                if node.parameter is None:
                    node.parameter = (segment[1:-1], _Node())
                node = node.parameter[1]
            else:
                node = node.next.setdefault(segment, _Node())
        return node

    def _nearest(self, segments: tuple[str, ...]) -> list[str]:
        """Return the operations whose paths have most segments in common with the requested one."""

        def difference(name: str) -> tuple[int, int]:
            template = self._templates[name]
            pairs = list(zip(template, segments, strict=False))
            equal = 2 * sum(own == other for own, other in pairs) + sum(own.startswith("{") for own, _ in pairs)
            # A last segment such as "infer" says more than the parameters before it.
            equal += 2 * (template[-1:] == segments[-1:])
            return -equal, abs(len(template) - len(segments))

        return sorted(self._templates, key=difference)[:_NEAREST]


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.removeprefix("/").removesuffix("/").split("/"))


def _walk(
    node: _Node, segments: tuple[str, ...], parameters: tuple[tuple[str, str], ...] = ()
) -> Iterator[tuple[_Node, tuple[tuple[str, str], ...]]]:
    """Yield the ends of the templates that match, with their parameters, those with more text first."""
    if not segments:
        yield node, parameters
        return
    first, rest = segments[0], segments[1:]
    if first in node.next:
        yield from _walk(node.next[first], rest, parameters)
    if node.parameter is not None and first:
        name, below = node.parameter
        yield from _walk(below, rest, (*parameters, (name, first)))


def _decoded(parameters: tuple[tuple[str, str], ...]) -> Mapping[str, str] | None:
    """Return the parameters without percent-encoding; None if they are not UTF-8."""
    try:
        return {name: unquote_to_bytes(text).decode() if "%" in text else text for name, text in parameters}
    except UnicodeDecodeError:
        return None


def _allowed(verbs: set[str]) -> tuple[str, ...]:
    return tuple(sorted(verbs | {"HEAD"} if "GET" in verbs else verbs))
