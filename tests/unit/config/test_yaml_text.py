"""The strict YAML reader."""

from itertools import pairwise

import pytest

from inferd.config.yaml_text import RepeatedKeyError, YamlError, lines_of, read_yaml


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a: 1\na: 2", "a is set on line 1 already", 2),
        ("a:\n- b: 1\n- b: 1\n  c: 2\n  b: 3", "a.1.b is set on line 3 already", 5),
        ("{a: 1, 'a': 2}", "a is set on line 1 already", 1),
        ("1: 1\n1: 2", "1 is set on line 1 already", 2),
        ("x: &x {a: 1}\ny: &y {a: 1}\nz:\n  <<: *x\n  <<: *y", "z.<< is set on line 4 already", 5),
    ],
)
def test_rejects_duplicate_keys(text: str, message: str, line: int) -> None:
    """At any depth."""
    with pytest.raises(RepeatedKeyError, match=f"^{message}$") as caught:
        read_yaml(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        ("a: {b: 1}\nb: {b: 1}", {"a": {"b": 1}, "b": {"b": 1}}),
        ("a: 1\nA: 2\n1: 3\n'1': 4", {"a": 1, "A": 2, 1: 3, "1": 4}),
        ("x: &x {a: 1}\ny: {<<: *x, a: 2}", {"x": {"a": 1}, "y": {"a": 2}}),
        ("x: &x {a: 1}\ny: &y {<<: *x, a: 2}\nz: {<<: *y, a: 3}", {"x": {"a": 1}, "y": {"a": 2}, "z": {"a": 3}}),
    ],
)
def test_accepts_distinct_keys(text: str, content: object) -> None:
    """They differ in mapping, case or type; overrides of merged values are no duplicates."""
    assert read_yaml(text)[1] == content


def test_recursive_alias() -> None:
    """It is visited once."""
    with pytest.raises(RepeatedKeyError, match=r"^a\.b is set on line 1 already$"):
        read_yaml("a: &a {self: *a, b: 1, b: 2}")


def test_lines_of_keys_and_items() -> None:
    """At any depth; what an alias repeats has the line of its key."""
    node, _ = read_yaml("a: &a\n  b:\n  - c\n  - d:\n      e: 1\nf: *a\n")
    assert lines_of(node) == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "b", "0"): 3,
        ("a", "b", "1"): 4,
        ("a", "b", "1", "d"): 4,
        ("a", "b", "1", "d", "e"): 5,
        ("f",): 6,
    }


def test_lines_of_recursive_aliases() -> None:
    """Each value is visited once: paths through aliases have no end."""
    text = f"a: &a {{{', '.join(f'k{number}: *a' for number in range(300))}}}"
    assert len(lines_of(read_yaml(text)[0])) == 301


@pytest.mark.parametrize("text", ["a: [", "[" * 10_000, "a: 2030-13-45", "a: \x00", "{[a]: 1}"])
def test_invalid_yaml(text: str) -> None:
    """All of it raises the same error."""
    with pytest.raises(YamlError, match=r"^is not YAML: "):
        read_yaml(text)


def _bomb(first: str, line: str) -> str:
    """Return nine levels, each with nine aliases of the previous one."""
    names = "abcdefghij"
    levels = (line.format(name=name, above=", ".join([f"*{above}"] * 9)) for above, name in pairwise(names))
    return "\n".join([first, *levels])


@pytest.mark.parametrize(
    "text",
    [
        _bomb("a: &a [x, x]", "{name}: &{name} [{above}]"),
        _bomb("a: &a {x: 1}", "{name}: &{name} {{<<: [{above}]}}"),
        f"a: &a {'x' * 1_000_000}\nb: [{', '.join(['*a'] * 1000)}]",
    ],
)
def test_rejects_alias_bombs(text: str) -> None:
    """In lists, merge keys and long strings, before anything is constructed."""
    with pytest.raises(YamlError, match="its aliases expand to more than 1000000 values"):
        read_yaml(text)


@pytest.mark.parametrize("text", ["a: !!timestamp x", "a: !!int ''", "a: !!bool x", "a: !!float ''", "a: !!int 0x"])
def test_values_that_do_not_match_their_tags(text: str) -> None:
    """The loader's own errors are converted."""
    with pytest.raises(YamlError, match=r"^is not YAML: "):
        read_yaml(text)


@pytest.mark.parametrize("text", ["a: \x00", "a: 2030-13-45", "a: [", "? [1, 2]\n: 3", "a: !!python/name:os.system x"])
def test_errors_are_one_line(text: str) -> None:
    """The loader's messages may have several."""
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    assert len(str(caught.value).splitlines()) == 1
