"""An object store in memory for fsspec, ``objects://``: what is uploaded is there when it is complete, or not at all.

It counts its calls, of which those that a test names fail.
"""

import io
from collections.abc import Callable
from typing import Any, ClassVar

import fsspec
from fsspec import AbstractFileSystem


class ObjectStore(AbstractFileSystem):
    """The store. ``before`` is called with each call's number and name before it is done."""

    protocol = "objects"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    calls: ClassVar[list[str]] = []
    before: ClassVar[Callable[[int, str], None]] = staticmethod(lambda _number, _name: None)

    @classmethod
    def reset(cls) -> None:
        """Forget everything."""
        cls.objects.clear()
        cls.restart()

    @classmethod
    def restart(cls, before: Callable[[int, str], None] = lambda _number, _name: None) -> None:
        """Count from 0 again, with another ``before``."""
        cls.calls.clear()
        cls.before = staticmethod(before)

    def call(self, name: str) -> None:
        """Count a call."""
        self.calls.append(name)
        type(self).before(len(self.calls) - 1, name)

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> "io.BytesIO":
        return io.BytesIO(self.cat_file(path)) if mode == "rb" else _Upload(self, path)

    def cat_file(self, path: str, *_: Any, **__: Any) -> bytes:
        """Return the content of an object."""
        self.call(f"read {path}")
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Write an object, or fail if it is there, as asked."""
        self.call(f"write {path}")
        if mode == "create" and path in self.objects:
            # As S3 does.
            raise OSError("PreconditionFailed")
        self.objects[path] = value

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a folder."""
        self.call(f"list {path}")
        found: dict[str, dict[str, Any]] = {}
        for name, content in self.objects.items():
            if name.startswith(f"{path}/"):
                first, below, _ = name.removeprefix(f"{path}/").partition("/")
                kind = "directory" if below else "file"
                found[first] = {"name": f"{path}/{first}", "type": kind, "size": len(content)}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values()) if detail else list(found)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe an object."""
        self.call(f"info {path}")
        if path not in self.objects:
            raise FileNotFoundError(path)
        return {"name": path, "type": "file", "size": len(self.objects[path])}

    def rm_file(self, path: str) -> None:
        """Delete an object."""
        self.call(f"delete {path}")
        self.objects.pop(path, None)


class _Upload(io.BytesIO):
    def __init__(self, store: ObjectStore, path: str) -> None:
        super().__init__()
        self._store = store
        self._path = path

    def close(self) -> None:
        """Upload what was written."""
        self._store.call(f"upload {self._path}")

    def commit(self) -> None:
        """Complete the upload."""
        self._store.call(f"complete {self._path}")
        self._store.objects[self._path] = self.getvalue()

    def discard(self) -> None:
        """Give the upload up."""
        self._store.call(f"discard {self._path}")


fsspec.register_implementation("objects", ObjectStore, clobber=True)
