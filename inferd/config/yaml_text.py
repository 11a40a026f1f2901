"""Reads YAML, in which nothing may be said twice: parsers keep the last of two equal keys and say nothing."""

from collections import deque
from itertools import chain
from typing import Any

import yaml

#: More than any file of settings, rules or tokens has.
_MOST_VALUES = 1_000_000

#: Long text counts for more.
_CHARACTERS_PER_VALUE = 64

#: A node, and the keys that lead to it.
_Placed = tuple[yaml.Node, tuple[str, ...]]


class YamlError(ValueError):
    """Text that is refused, and what is wrong with it, to be put behind the file's name.

    ``line`` counts from 1, and is 0 where it is not known.
    """

    def __init__(self, text: str, line: int = 0) -> None:
        super().__init__(text)
        self.line = line


class RepeatedKeyError(YamlError):
    """A mapping has ``key`` a second time; the first is on line ``first_line``."""

    def __init__(self, path: tuple[str, ...], line: int, first_line: int) -> None:
        super().__init__(f"{'.'.join(path)} is set on line {first_line} already", line)
        self.key = path[-1]
        self.first_line = first_line


def read_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of ``text``, None if it is empty, and what it says. Raises `YamlError`.

    In the nodes, what comes in by a merge key (``<<``) stands in the mapping itself, before what overrides it.
    """
    try:
        # The pure Python loader, slow as it is: the one in C crashes the process if a file is nested deeply enough.
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
    except (yaml.YAMLError, ValueError) as error:  # ValueError: dates that do not exist
        raise YamlError(f"is not YAML: {' '.join(str(error).split())}") from None
    except (AttributeError, ArithmeticError, LookupError, TypeError):
        # How the loader fails on values that do not fit the tag that is written before them.
        raise YamlError("is not YAML: it holds a value that is not of the kind that its tag says") from None


def _require_bounded(root: yaml.Node) -> None:
    """Refuse aliases that make a few lines stand for more values than anybody could write."""
    sizes: dict[int, int] = {}

    def size_of(node: yaml.Node) -> int:
        # An alias that leads in a circle counts once, as it is one value.
        known = sizes.setdefault(id(node), 0)
        if known:
            return known
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value) // _CHARACTERS_PER_VALUE
        sizes[id(node)] = 1
        below = chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] += sum(map(size_of, below))
        return sizes[id(node)]

    if size_of(root) > _MOST_VALUES:
        raise YamlError(f"is not YAML that can be read: by its aliases it holds more than {_MOST_VALUES} values")


def _require_unique_keys(root: yaml.Node) -> None:
    waiting: deque[_Placed] = deque([(root, ())])
    seen: set[int] = set()
    while waiting:
        node, path = waiting.popleft()
        if id(node) in seen:
            # An alias, which may lead in circles.
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend((each, (*path, str(number))) for number, each in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(_unique(node, path))


def _unique(mapping: yaml.MappingNode, path: tuple[str, ...]) -> list[_Placed]:
    """Return the values of ``mapping`` with their paths."""
    lines: dict[tuple[str, str], int] = {}
    values: list[_Placed] = []
    for key, value in mapping.value:
        inner = (*path, str(key.value))
        if isinstance(key, yaml.ScalarNode):
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise RepeatedKeyError(inner, line, lines[name])
            lines[name] = line
        values.append((value, inner))
    return values
