"""Empty files, for tests of where models are found."""

from pathlib import Path

from inferd.models.repository import resolve


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def found(*paths: Path) -> list[tuple[str, str, str]]:
    return [(source.name, source.version, source.path.name) for source in resolve(paths)]
