"""What a job is, its plan, and which parts are done, as files of its output.

The plan is written once, by whoever comes first; everybody else has to want the same job. A part is done when its note
is there: its error rows are written before it, and its answers before that, so that a note is never without them. What
was written without a note is written again.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import orjson

from inferd.batch.errors import BatchError, RowError
from inferd.batch.output_folder import OutputFolder
from inferd.batch.plan import Plan, from_json
from inferd.batch.storage import shown
from inferd.plain_text import clipped, escaped

_SCHEMA = "inferd-batch/1"
_MANIFEST, _SUMMARY, _ERRORS = "manifest.json", "summary.json", "errors.jsonl"
#: Differences between two jobs that are named.
_SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What the answers of a job depend on: the same identity has the same answers.

    All values are plain JSON. ``inputs`` are the files by address, with what differs once their content does.
    """

    model: Mapping[str, Any]
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    versions: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The hash of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def differences(self, before: Mapping[str, Any]) -> list[str]:
        """Return what has changed since the identity in a manifest, in words."""
        own = json.loads(json.dumps(asdict(self)))
        found: list[str] = []
        for kind in own:
            was, now = before.get(kind, {}), own[kind]
            found += [
                _difference(kind, name, was, now) for name in sorted({*was, *now}) if was.get(name) != now.get(name)
            ]
        return found


def _difference(kind: str, name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if kind == "inputs":
        change = "is new" if name not in was else "is not there any more" if name not in now else "has changed"
        return f"{shown(name)} {change}"
    before, after = (clipped(escaped(json.dumps(each.get(name))), 60) for each in (was, now))
    return f"{kind} {name}: {before} before, {after} now"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartNote:
    """What is noted of a part that is done: its answers, error rows, bytes, and how many batches had so many rows."""

    part: int
    rows: int
    errors: int
    nbytes: int
    batches: Mapping[str, int] = field(default_factory=dict)


class Manifest:
    """The files of one job in ``folder``: parts with ``suffix`` in ``parts_in``, everything else in ``work``.

    Both are folders below ``folder``, or empty for itself. One thread.
    """

    def __init__(self, folder: OutputFolder, *, work: str, parts_in: str, suffix: str) -> None:
        self._folder = folder
        self._work = f"{work}/" if work else ""
        self._parts_in = f"{parts_in}/" if parts_in else ""
        self._suffix = suffix

    def find(self, identity: Identity) -> Plan | None:
        """Return the plan of this job if there is one. Raises `BatchError` if another job's is there."""
        content = self._folder.read(f"{self._work}{_MANIFEST}")
        if content is None:
            return None
        try:
            manifest = json.loads(content)
            if manifest["schema"] == _SCHEMA:
                if manifest["hash"] == identity.digest:
                    return from_json(manifest["plan"])
                raise BatchError(self._refusal(identity.differences(manifest["identity"])))
        except (KeyError, TypeError, ValueError) as error:
            raise BatchError(f"{self._where(_MANIFEST)} is damaged; --overwrite begins anew") from error
        raise BatchError(f"{self._where(_MANIFEST)} is of another version of inferd batch; --overwrite begins anew")

    def find_or_create(self, identity: Identity, make_plan: Callable[[], Plan]) -> Plan:
        """Return the plan of this job, made by ``make_plan`` unless there is one. Raises `BatchError`."""
        plan = self.find(identity)
        if plan is None:
            self._require_empty()
            plan = make_plan()
            document = {
                "schema": _SCHEMA,
                "hash": identity.digest,
                "identity": asdict(identity),
                "plan": plan.as_json(),
            }
            if not self._folder.create_new(f"{self._work}{_MANIFEST}", orjson.dumps(document)):
                # Another process of the same job was faster.
                return self.find_or_create(identity, make_plan)
        return plan

    def forget(self) -> None:
        """Delete everything of the job that was here."""
        for name in (*self._parts(), *self._notes(), *self._error_files()):
            self._folder.delete(name)
        for name in (_SUMMARY, _ERRORS, _MANIFEST):
            self._folder.delete(f"{self._work}{name}")

    def done(self) -> dict[int, PartNote]:
        """Return the notes of the parts that are done, by part."""
        summary = self._folder.read(f"{self._work}{_SUMMARY}")
        if summary is not None:
            return {each["part"]: PartNote(**each) for each in json.loads(summary)["parts"]}
        notes = {}
        for name in self._notes():
            content = self._folder.read(name)
            # Another process may just have completed the job.
            if content is not None:
                note = PartNote(**json.loads(content))
                notes[note.part] = note
        return notes

    @property
    def is_complete(self) -> bool:
        """Whether all parts are done, and what has to follow too."""
        return self._folder.read(f"{self._work}{_SUMMARY}") is not None

    @contextmanager
    def part(self, part: int) -> Iterator[BinaryIO]:
        """Context with the file of a part, which is there when it ends."""
        with self._folder.create(self.part_name(part)) as file:
            yield file

    def part_name(self, part: int) -> str:
        """Return the name of the file of a part."""
        return f"{self._parts_in}part-{part:05d}{self._suffix}"

    def note(self, note: PartNote, errors: Iterable[RowError]) -> None:
        """Write the error rows of a part whose file is there, and then that it is done."""
        lines = [orjson.dumps(asdict(error)) for error in errors]
        name = f"{self._work}errors/{note.part:05d}.jsonl"
        if lines:
            with self._folder.create(name) as file:
                file.write(b"\n".join(lines) + b"\n")
        else:
            self._folder.delete(name)
        with self._folder.create(f"{self._work}parts/{note.part:05d}.json") as file:
            file.write(orjson.dumps(asdict(note)))

    def write_errors(self, file: BinaryIO) -> None:
        """Write the error rows of all parts to ``file``, in order."""
        for name in self._error_files():
            with self._folder.open(name) as rows:
                while piece := rows.read(1 << 20):
                    file.write(piece)

    def complete(self, notes: Mapping[int, PartNote], totals: Mapping[str, Any]) -> None:
        """Write the summary in place of the notes. What is not needed any more is deleted."""
        document = {"schema": _SCHEMA, **totals, "parts": [asdict(notes[part]) for part in sorted(notes)]}
        with self._folder.create(f"{self._work}{_SUMMARY}") as file:
            file.write(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        self.tidy()

    def tidy(self) -> None:
        """Delete what a complete job does not need; also if a process was killed while it did so."""
        for name in (*self._notes(), *self._error_files()):
            self._folder.delete(name)
        for folder in ("parts", "errors", ""):
            self._folder.clean(f"{self._work}{folder}".rstrip("/"))

    def clean(self, parts: Iterable[int]) -> None:
        """Delete the temporaries that killed processes have left of ``parts``."""
        numbers = {f"{part:05d}" for part in parts}
        self._folder.clean(self._parts_in.rstrip("/"), {f"part-{number}" for number in numbers})
        for folder in ("parts", "errors"):
            self._folder.clean(f"{self._work}{folder}", numbers)

    def _require_empty(self) -> None:
        """Raise `BatchError` if there are files that are not of a job."""
        if self._parts():
            where = shown(self._folder.address)
            raise BatchError(f"{where} has parts of an unknown job; --overwrite replaces them")

    def _refusal(self, differences: list[str]) -> str:
        more = len(differences) - _SHOWN
        listed = "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        return f"{shown(self._folder.address)} has the answers of another job: {listed}; --overwrite begins anew"

    def _where(self, name: str) -> str:
        return shown(f"{self._folder.address}/{self._work}{name}")

    def _parts(self) -> list[str]:
        names = self._folder.names(self._parts_in.rstrip("/"))
        return [name for name in names if name.removeprefix(self._parts_in).startswith("part-")]

    def _notes(self) -> list[str]:
        return self._folder.names(f"{self._work}parts")

    def _error_files(self) -> list[str]:
        return self._folder.names(f"{self._work}errors")
