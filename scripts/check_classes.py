"""Report classes of the package with more state than a reader keeps in mind.

Counted are the attributes that the class's own methods assign on ``self``, those in its ``__slots__``, and the fields
of a dataclass; not those of its bases, which are read as classes of their own. Exempt are declarations without
behaviour over time: sections of settings (pydantic models), frozen dataclasses and named tuples, which are results or
plans that are made once, protocols and enumerations.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

#: The most attributes of a class.
LIMIT = 13

_PACKAGE = Path(__file__).resolve().parent.parent / "inferd"
_GENERATED = _PACKAGE / "_generated"

#: Bases that make a class a declaration. Settings derive from one of the pydantic classes, or from a section.
_DECLARATIONS = {"BaseModel", "BaseSettings", "NamedTuple", "Protocol", "Section", "Enum", "StrEnum", "TypedDict"}


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the names of the attributes that instances of the class have by its own body; empty if it is exempt."""
    if _bases(node) & _DECLARATIONS:
        return set()
    options = _dataclass_options(node)
    if options is not None and "frozen" in options:
        return set()
    fields = _fields(node) if options is not None else set()
    return fields | _slots(node) | set(_assigned(node))


def _bases(node: ast.ClassDef) -> set[str]:
    names = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
    return {ast.unparse(name).rpartition(".")[2] for name in names}


def _dataclass_options(node: ast.ClassDef) -> set[str] | None:
    """Return the options that the decorator sets to True; None if the class is no dataclass."""
    for decorator in node.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        if ast.unparse(call).rpartition(".")[2] == "dataclass":
            keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
            return {each.arg for each in keywords if each.arg and ast.unparse(each.value) == "True"}
    return None


def _fields(node: ast.ClassDef) -> set[str]:
    return {
        each.target.id
        for each in node.body
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.target, ast.Name)
        and not ast.unparse(each.annotation).startswith("ClassVar")
    }


def _slots(node: ast.ClassDef) -> set[str]:
    for each in node.body:
        if isinstance(each, ast.Assign) and any(ast.unparse(target) == "__slots__" for target in each.targets):
            names = ast.literal_eval(each.value)
            return {names} if isinstance(names, str) else set(names)
    return set()


def _assigned(node: ast.ClassDef) -> Iterator[str]:
    """Return the attributes that methods assign on ``self``, also in functions within them."""
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store) and ast.unparse(each.value) == "self":
            yield each.attr


def found(path: Path) -> Iterator[tuple[ast.ClassDef, set[str]]]:
    """Return the classes of a file that have too many attributes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            names = attributes(node)
            if len(names) > LIMIT:
                yield node, names


def main() -> int:
    """Print each class with too many attributes; return 1 if there is one."""
    is_found = False
    for path in sorted(_PACKAGE.rglob("*.py")):
        if path.is_relative_to(_GENERATED):
            continue
        for node, names in found(path):
            is_found = True
            where = f"{path.relative_to(_PACKAGE.parent)}:{node.lineno}: {node.name}"
            print(f"{where} has {len(names)} attributes, expected at most {LIMIT}: {', '.join(sorted(names))}")
    return 1 if is_found else 0


if __name__ == "__main__":
    sys.exit(main())
