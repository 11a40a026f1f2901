"""The check of how much state a class has."""

import ast

import pytest

from scripts.check_classes import attributes, main

PLAIN = """
class A(Base[int]):
    __slots__ = ("a", "b")
    limit: int = 3

    def __init__(self, other):
        self.b, self._c = 1, 2
        self.d: int = 3
        other.e = 4
        print(self.f)

    def later(self):
        self.g += 1
        with open("x") as self.h:
            pass

        def callback():
            self.i = 1

    @staticmethod
    def build(cls):
        cls.j = 1
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (PLAIN, "a b _c d g h i"),
        ("@dataclass(slots=True)\nclass A:\n    a: int\n    b: int = 0\n    c: ClassVar[int] = 1", "a b"),
        ("@dataclasses.dataclass(frozen=True)\nclass A:\n    a: int", ""),
        ("@dataclass(frozen=False)\nclass A:\n    a: int", "a"),
        ("class A(BaseSettings):\n    def f(self):\n        self.a = 1", ""),
        ("class A(Protocol):\n    def f(self):\n        self.a = 1", ""),
    ],
)
def test_counts_attributes_of_the_class_itself(source, expected):
    """Those that its methods assign, slots, and fields of dataclasses; none of declarations and frozen records."""
    (node,) = ast.parse(source.lstrip()).body
    assert attributes(node) == set(expected.split())


def test_reports_class_above_the_limit(tmp_path, monkeypatch, capsys):
    """With its place and its attributes."""
    package = tmp_path / "inferd"
    package.mkdir()
    monkeypatch.setattr("scripts.check_classes._PACKAGE", package)
    lines = "\n".join(f"        self.a{number} = 0" for number in range(13))
    (package / "x.py").write_text(f"class A:\n    def __init__(self):\n{lines}\n")
    assert main() == 0
    (package / "y.py").write_text(f"class B:\n    def __init__(self):\n{lines}\n        self.one_more = 0\n")
    assert main() == 1
    assert "inferd/y.py:1: B has 14 attributes, expected at most 13: a0, a1" in capsys.readouterr().out
