"""The identity of a job: all that its answers depend on. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from inferd.batch.storage import shown
from inferd.plain_text import clipped, escaped


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """All that the answers of a job depend on: jobs with equal identities have equal answers.

    All values are plain JSON. ``inputs`` has the size and version of each file by its address.
    """

    model: Mapping[str, Any]
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def digest(self) -> str:
        """A hash of the identity."""
        # With the order of the files, which the plan refers to by index.
        content = json.dumps([asdict(self), list(self.inputs)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def without_files(self) -> Mapping[str, Any]:
        """The identity without the files, whose names and times differ in a copy."""
        return {"model": self.model, "options": self.options, "versions": self.versions}

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """Describe the differences to ``before``, the identity in a manifest."""
        own = json.loads(json.dumps(asdict(self)))
        found: list[str] = []
        for kind in own:
            was, now = before[kind], own[kind]
            found += [
                _difference(kind, name, was, now) for name in sorted({*was, *now}) if was.get(name) != now.get(name)
            ]
        return found or ["the files are in another order"]


def _difference(kind: str, name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if kind == "inputs":
        change = "is new" if name not in was else "is not there any more" if name not in now else "has changed"
        return f"{shown(name)} {change}"
    before, after = (clipped(escaped(json.dumps(each.get(name))), 60) for each in (was, now))
    return f"{kind} {name}: {before} before, {after} now"
