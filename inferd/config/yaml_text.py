"""A strict YAML reader: rejects duplicate keys, of which parsers silently keep the last, and alias bombs."""

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, TypeVar

import yaml

#: More than any file of settings, rules or tokens needs.
_MAX_VALUES = 1_000_000

#: Long strings count as more than one value.
_CHARACTERS_PER_VALUE = 64

T = TypeVar("T")

#: A node and the keys that lead to it.
_PathNode = tuple[yaml.Node, tuple[str, ...]]


class YamlError(ValueError):
    """Invalid text. The message is meant to follow the file's name.

    ``line`` counts from 1; 0 is unknown.
    """

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


class RepeatedKeyError(YamlError):
    """A mapping has ``key`` twice; the first is on line ``first_line``."""

    def __init__(self, path: tuple[str, ...], line: int, first_line: int) -> None:
        super().__init__(f"{'.'.join(path)} is set on line {first_line} already", line)
        self.key = path[-1]
        self.first_line = first_line


def read_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the root node of ``text``, None if it is empty, and its value. Raises `YamlError`.

    In the nodes, the entries of a merge key (``<<``) are part of the mapping itself, before those that override them.
    """
    try:
        # The slow pure Python loader: the one in C crashes the process on deeply nested files.
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, None
            _require_bounded(node)
            _require_unique_keys(node)
            return node, loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(f"is not YAML: {error.problem}", mark.line + 1 if mark else 0) from None
    except RecursionError:
        raise YamlError("is not YAML: it is nested too deeply") from None
    except YamlError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: invalid dates
        raise YamlError(f"is not YAML: {' '.join(str(error).split())}") from None
    except (AttributeError, ArithmeticError, LookupError, TypeError):
        # The loader's errors for values that do not match their explicit tag.
        raise YamlError("is not YAML: a value does not match its tag") from None


def keys_of(root: yaml.Node | None) -> Iterator[tuple[tuple[str, ...], yaml.Node]]:
    """Yield each key in ``root``, with the keys and places in lists that lead to it and its own."""
    return ((path, key) for path, key, is_key in _below(root) if is_key)


def lines_of(root: yaml.Node | None) -> dict[tuple[str, ...], int]:
    """Return the line of each key and item in ``root``, by the keys and places that lead to it and its own.

    What an alias repeats has no lines of its own.
    """
    return {path: line_of(node) for path, node, _ in _below(root)}


def line_of(node: yaml.Node) -> int:
    """Return the line of a key or an item, from 1."""
    line: int = node.start_mark.line
    return line + 1


def longest_match(known: Mapping[tuple[str, ...], T], path: tuple[str, ...]) -> T | None:
    """Return what is known of ``path``, or else of the nearest of the keys that lead to it; None if of none."""
    return next((known[path[:length]] for length in range(len(path), 0, -1) if path[:length] in known), None)


def _require_bounded(root: yaml.Node) -> None:
    """Reject alias bombs: a few lines that expand to a huge number of values."""
    sizes: dict[int, int] = {}

    def size_of(node: yaml.Node) -> int:
        # A recursive alias is one value, counted once.
        known = sizes.setdefault(id(node), 0)
        if known:
            return known
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value) // _CHARACTERS_PER_VALUE
        sizes[id(node)] = 1
        below = chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] += sum(map(size_of, below))
        return sizes[id(node)]

    if size_of(root) > _MAX_VALUES:
        raise YamlError(f"is too large: its aliases expand to more than {_MAX_VALUES} values")


def _below(root: yaml.Node | None) -> Iterator[tuple[tuple[str, ...], yaml.Node, bool]]:
    """Yield each key and list item with its path, and whether it is a key.

    Aliases are not followed: they may be recursive, and a few lines of them lead to any number of paths.
    """
    waiting: deque[tuple[yaml.Node | None, tuple[str, ...]]] = deque([(root, ())])
    seen: set[int] = set()
    while waiting:
        node, above = waiting.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                path = (*above, str(key.value))
                yield path, key, True
                waiting.append((value, path))
        elif isinstance(node, yaml.SequenceNode):
            for number, each in enumerate(node.value):
                path = (*above, str(number))
                yield path, each, False
                waiting.append((each, path))


def _require_unique_keys(root: yaml.Node) -> None:
    waiting: deque[_PathNode] = deque([(root, ())])
    seen: set[int] = set()
    while waiting:
        node, path = waiting.popleft()
        if id(node) in seen:
            # An alias, which may be recursive.
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend((each, (*path, str(number))) for number, each in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(_values(node, path))


def _values(mapping: yaml.MappingNode, path: tuple[str, ...]) -> list[_PathNode]:
    """Return the values of ``mapping`` with their paths. Raises `RepeatedKeyError`."""
    lines: dict[tuple[str, str], int] = {}
    values: list[_PathNode] = []
    for key, value in mapping.value:
        inner = (*path, str(key.value))
        if isinstance(key, yaml.ScalarNode):
            name, line = (key.tag, key.value), line_of(key)
            if name in lines:
                raise RepeatedKeyError(inner, line, lines[name])
            lines[name] = line
        values.append((value, inner))
    return values
