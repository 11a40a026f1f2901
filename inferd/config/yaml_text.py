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
    """Yield each key and list item with its path, and whether it is a key."""
    for node, above in _collections(root):
        is_mapping = isinstance(node, yaml.MappingNode)
        for name, entry, _ in _entries(node):
            yield (*above, name), entry, is_mapping


def _require_unique_keys(root: yaml.Node) -> None:
    """Raise `RepeatedKeyError` if a mapping has a key twice."""
    for node, path in _collections(root):
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name, line = (key.tag, key.value), line_of(key)
            if name in lines:
                raise RepeatedKeyError((*path, str(key.value)), line, lines[name])
            lines[name] = line


def _collections(root: yaml.Node | None) -> Iterator[tuple[yaml.CollectionNode, tuple[str, ...]]]:
    """Yield each mapping and list with its path, those around others first.

    Aliases are not followed: they may be recursive, and a few lines of them lead to any number of paths.
    """
    waiting: deque[tuple[yaml.Node | None, tuple[str, ...]]] = deque([(root, ())])
    seen: set[int] = set()
    while waiting:
        node, path = waiting.popleft()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        yield node, path
        waiting.extend((value, (*path, name)) for name, _, value in _entries(node))


def _entries(node: yaml.CollectionNode) -> list[tuple[str, yaml.Node, yaml.Node]]:
    """Return the name, the key and the value of each entry; those of a list are its place, the item, and the item."""
    if isinstance(node, yaml.MappingNode):
        return [(str(key.value), key, value) for key, value in node.value]
    return [(str(number), each, each) for number, each in enumerate(node.value)]
