"""The identity and plan of a job, and the notes of its parts, as files in its output.

The plan is written once, by the first process; the others must have the same identity. Of a part, the answers are
written first, then its error rows, then its note: a part is done once its note exists, and a part without a note is
written again. The job is complete once its summary exists, which is written last; then the notes are deleted. To
replace a job, its files are deleted in the opposite order, the plan last.

    OUTPUT/                          a folder of parts        OUTPUT.parquet              one file
        part-00000.parquet                                    OUTPUT.parquet.inferd/
        _inferd/                                                  data/part-00000.parquet     until they are joined
            manifest.json            the identity and plan        manifest.json ... as beside
            parts/00000.json         the note of a part
            errors/00000.jsonl       its error rows
            summary.json             at the end, in place of the notes
            errors.jsonl             all error rows, unless --errors names a file
            begun-0.json             the parts that a process runs
            lock-0-of-1              while a process runs
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, BinaryIO

import orjson

from inferd.batch.begun_parts import BegunParts, begun_files
from inferd.batch.errors import InUseError, RowError, UsageError
from inferd.batch.identity import Identity
from inferd.batch.output_folder import OutputFolder, output_folder
from inferd.batch.plan import Plan, PlanDocumentError, decode_document, encode_document
from inferd.batch.storage import shown
from inferd.plain_text import escaped

_MANIFEST, _SUMMARY, _ERRORS = "manifest.json", "summary.json", "errors.jsonl"
#: The most differences between two jobs that an error names.
_SHOWN = 5
_PART = re.compile(r"part-\d{5,}\.\w+")
_LOCK = re.compile(r"lock-\d+-of-(\d+)")

#: Writes the contents of all parts, which are given as functions that open them, to one file.
Join = Callable[[Iterable[Callable[[], BinaryIO]], BinaryIO], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PartNote:
    """The note of a part that is done: rows with an answer, error rows, bytes, and the number of batches by rows."""

    part: int
    rows: int
    errors: int
    nbytes: int
    batches: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Summary:
    """The summary of a complete job: the notes by part, and the bytes of the joined file, 0 without one."""

    notes: dict[int, PartNote]
    joined_bytes: int


class AnotherJobError(UsageError):
    """The output belongs to another job. The text has the differences."""


class Manifest:
    """The files of one job in ``folder``: parts with ``suffix`` in ``parts_in``, all others in ``work``.

    Both are folders below ``folder``, or empty for ``folder`` itself. ``joined`` is the file into which the parts are
    joined; empty if the parts are the output. Threads: one.
    """

    def __init__(self, folder: OutputFolder, *, work: str, parts_in: str, suffix: str, joined: str = "") -> None:
        self._folder = folder
        self._work = f"{work}/" if work else ""
        self._parts_in = f"{parts_in}/" if parts_in else ""
        self._suffix = suffix
        self._joined = joined
        self._own_lock = ""

    @contextmanager
    def lock(self, index: int = 0, indexes: int = 1) -> Iterator[None]:
        """Context in which this process alone is ``index`` of ``indexes``.

        Raises `InUseError` if another process has the index, or runs with another number of indexes.
        """
        self._own_lock = f"{self._work}lock-{index}-of-{indexes}"
        with self._folder.lock(self._own_lock):
            found = {name: _LOCK.fullmatch(name.removeprefix(self._work)) for name in self._locks()}
            others = [name for name, lock in found.items() if lock and int(lock[1]) != indexes]
            held = self._folder.held(others)
            if held:
                number = f"one of {indexes}" if indexes > 1 else "the only one"
                raise InUseError(f"{self._where(held[0])}: it is in use; this process is to be {number}")
            yield

    def find(self, identity: Identity) -> Plan | None:
        """Return the plan of this job; None without a plan. Raises `AnotherJobError` for the plan of another job."""
        content = self._folder.read(f"{self._work}{_MANIFEST}")
        if content is None:
            return None
        try:
            document = decode_document(content)
        except PlanDocumentError as error:
            raise UsageError(f"{self._where(_MANIFEST)}: {error}; --overwrite starts over") from error
        if document.digest == identity.digest:
            return document.plan
        raise AnotherJobError(self._refusal(identity.differences(document.identity)))

    def find_or_create(self, identity: Identity, make_plan: Callable[[], Plan]) -> Plan:
        """Return the plan of this job, made by ``make_plan`` unless there is one. Raises `BatchError`.

        The plan of another job is replaced if none of its parts is done.
        """
        try:
            plan = self.find(identity)
        except AnotherJobError:
            if self._has_answers():
                raise
            self.forget()
            plan = None
        if plan is None:
            self._require_new()
            plan = make_plan()
            if not self._folder.create_new(f"{self._work}{_MANIFEST}", encode_document(identity, plan)):
                # Another process of the same job has written its plan first.
                return self.find_or_create(identity, make_plan)
        return plan

    def forget(self) -> None:
        """Delete all files of the job.

        Raises `InUseError` if other processes run the job, and `UsageError` if there are other files, before anything
        is deleted.
        """
        self._require_no_other_files()
        if self._folder.held([name for name in self._locks() if name != self._own_lock]):
            raise InUseError(f"{self._output} is in use by another run of inferd batch")
        # In this order a kill leaves no note without its answers, and no answers without their plan.
        self._folder.delete([f"{self._work}{_SUMMARY}", *self._notes(), *begun_files(self._folder, self._work)])
        answers = [*self._parts(), *([self._joined] if self._joined else [])]
        self._folder.delete([*answers, *self._error_files(), f"{self._work}{_ERRORS}"])
        self._folder.delete([f"{self._work}{_MANIFEST}"])

    def done(self) -> dict[int, PartNote]:
        """Return the notes of the parts that are done, by part.

        Parts whose answers or error rows are missing or cut are left out, and so run again.
        """
        notes = []
        # Another process may just have completed the job, and deleted some notes.
        for content in self._folder.read_all(self._notes()):
            # A part whose note is damaged runs again.
            with suppress(TypeError, ValueError):
                notes.append(PartNote(**json.loads(content)))
        sizes, error_files = self._part_sizes(), set(self._error_files())
        # The summary is read last: once it exists, the other files are deleted.
        summary = self._summary()
        if summary is not None:
            return summary.notes
        return {
            note.part: note
            for note in notes
            if sizes.get(self.part_name(note.part)) == note.nbytes
            and (not note.errors or self._errors_name(note.part) in error_files)
        }

    @property
    def is_complete(self) -> bool:
        """True once the summary is written. Raises `UsageError` if the answers have other sizes than it says."""
        summary = self._summary()
        if summary is None:
            return False
        expected = {self.part_name(part): note.nbytes for part, note in summary.notes.items()}
        sizes: Mapping[str, int | None] = self._part_sizes()
        if self._joined:
            expected, sizes = {self._joined: summary.joined_bytes}, {self._joined: self._folder.size(self._joined)}
        for name, nbytes in expected.items():
            got = sizes.get(name)
            if got != nbytes:
                where = shown(f"{self._folder.address}/{name}")
                found = "no such file" if got is None else f"got {got:,}"
                raise UsageError(
                    f"{where}: expected {nbytes:,} bytes as of the complete job, {found}; --overwrite starts over"
                )
        return True

    def part(self, part: int) -> AbstractContextManager[BinaryIO]:
        """Context with the file of a part, which exists once the context has ended."""
        return self._folder.create(self.part_name(part))

    def part_name(self, part: int) -> str:
        """Return the name of the file of a part."""
        return f"{self._parts_in}part-{part:05d}{self._suffix}"

    def note(self, note: PartNote, errors: Iterable[RowError]) -> None:
        """Write the error rows of a part whose answers are written, and then its note."""
        lines = [orjson.dumps(asdict(error)) for error in errors]
        if lines:
            with self._folder.create(self._errors_name(note.part)) as file:
                file.write(b"\n".join(lines) + b"\n")
        with self._folder.create(f"{self._work}parts/{note.part:05d}.json") as file:
            file.write(orjson.dumps(asdict(note)))

    def finish(
        self, notes: Mapping[int, PartNote], totals: Mapping[str, Any], join: Join, errors_to: str | None = None
    ) -> None:
        """Complete the job: join the parts of ``notes``, write error rows, then the summary with ``totals``.

        Error rows are written to the file ``errors_to``, or beside the manifest; without error rows there is no file.
        Raises `InUseError` if another process is completing the job.
        """
        with self._folder.lock(f"{self._work}lock-finish"):
            if not self.is_complete:
                ordered = [notes[part] for part in sorted(notes)]
                document = {**totals, "parts": [asdict(note) for note in ordered]}
                if self._joined:
                    with self._folder.create(self._joined) as file:
                        join((partial(self._folder.open, self.part_name(note.part)) for note in ordered), file)
                        document["joined_bytes"] = file.tell()
                self._write_errors(ordered, errors_to)
                with self._folder.create(f"{self._work}{_SUMMARY}") as file:
                    file.write(orjson.dumps(document, option=orjson.OPT_INDENT_2))
            self._tidy(notes)

    def begun(self, index: int) -> BegunParts:
        """Return the note of the parts that process ``index`` runs."""
        return BegunParts(self._folder, self._work, index)

    def errors_address(self, errors_to: str | None) -> str:
        """Return the address of the error rows that `finish` writes, for messages."""
        return shown(errors_to) if errors_to else self._where(_ERRORS)

    def clean(self, parts: Iterable[int]) -> None:
        """Delete the temporaries of ``parts`` that killed processes left."""
        numbers = {f"{part:05d}" for part in parts}
        self._folder.clean(self._parts_in.rstrip("/"), {f"part-{number}" for number in numbers})
        for folder in ("parts", "errors"):
            self._folder.clean(f"{self._work}{folder}", numbers)

    def _tidy(self, parts: Iterable[int]) -> None:
        """Delete the files that a complete job does not need."""
        self.clean(parts)
        answers = self._parts() if self._joined else []
        begun = begun_files(self._folder, self._work)
        self._folder.delete([*self._notes(), *self._error_files(), *answers, *begun])
        for folder in (f"{self._work}parts", f"{self._work}errors", self._work, self._parts_in if self._joined else ""):
            if folder:
                self._folder.clean(folder.rstrip("/"))

    def _write_errors(self, notes: Iterable[PartNote], errors_to: str | None) -> None:
        parent, name = _split(errors_to) if errors_to else ("", f"{self._work}{_ERRORS}")
        folder = output_folder(parent) if errors_to else self._folder
        # Read by note: a file may be left of an earlier try of a part that has no errors now.
        names = [self._errors_name(note.part) for note in notes if note.errors]
        if not names:
            folder.delete([name])
            return
        with folder.create(name) as file:
            for each in names:
                with self._folder.open(each) as rows:
                    while piece := rows.read(1 << 20):
                        file.write(piece)

    def _require_new(self) -> None:
        """Raise `UsageError` if the output exists, but no plan."""
        where = self._output
        if self._joined and self._folder.size(self._joined) is not None:
            raise UsageError(f"{where} is there, and not of this job; --overwrite replaces it")
        if self._parts() or self._has_answers():
            raise UsageError(f"{where} has parts of an unknown job; --overwrite replaces them")
        self._require_no_other_files()

    def _require_no_other_files(self) -> None:
        if self._joined:
            return
        parts = set(self._parts())
        others = [name for name in self._folder.sizes() if not name.startswith((".", "_")) and name not in parts]
        if others:
            raise UsageError(
                f"{self._output} has other files, such as {escaped(others[0])}; name another directory, or move them"
            )

    def _has_answers(self) -> bool:
        """Return True if a part is done, or the job is being completed."""
        has_joined = bool(self._joined) and self._folder.size(self._joined) is not None
        return bool(self._notes()) or self._summary() is not None or has_joined

    def _refusal(self, differences: list[str]) -> str:
        more = len(differences) - _SHOWN
        listed = "; ".join(differences[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        return f"{self._output} has the answers of another job: {listed}; --overwrite starts over"

    def _part_sizes(self) -> dict[str, int]:
        return self._folder.sizes(self._parts_in.rstrip("/"))

    def _summary(self) -> "_Summary | None":
        content = self._folder.read(f"{self._work}{_SUMMARY}")
        if content is None:
            return None
        try:
            document = json.loads(content)
            notes = {each["part"]: PartNote(**each) for each in document["parts"]}
            return _Summary(notes, document["joined_bytes"] if self._joined else 0)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{self._where(_SUMMARY)} is damaged; --overwrite starts over") from error

    @property
    def _output(self) -> str:
        return shown(f"{self._folder.address}/{self._joined}".rstrip("/"))

    def _where(self, name: str) -> str:
        return shown(f"{self._folder.address}/{self._work}{name.removeprefix(self._work)}")

    def _errors_name(self, part: int) -> str:
        return f"{self._work}errors/{part:05d}.jsonl"

    def _locks(self) -> list[str]:
        names = self._folder.sizes(self._work.rstrip("/"))
        return [name for name in names if name.removeprefix(self._work).startswith("lock-")]

    def _parts(self) -> list[str]:
        names = self._part_sizes()
        return [name for name in names if _PART.fullmatch(name.removeprefix(self._parts_in))]

    def _notes(self) -> list[str]:
        return list(self._folder.sizes(f"{self._work}parts"))

    def _error_files(self) -> list[str]:
        return list(self._folder.sizes(f"{self._work}errors"))


def manifest_of(output: str, suffix: str, *, is_file: bool) -> Manifest:
    """Return the manifest of a job that writes to ``output``: one file, or a folder of parts with ``suffix``."""
    if not is_file:
        return Manifest(output_folder(output.rstrip("/") or "/"), work="_inferd", parts_in="", suffix=suffix)
    parent, name = _split(output)
    work = f"{name}.inferd"
    return Manifest(output_folder(parent), work=work, parts_in=f"{work}/data", suffix=suffix, joined=name)


def _split(address: str) -> tuple[str, str]:
    """Return the folder and the name of a file."""
    parent, separator, name = address.rpartition("/")
    return parent or (separator or "."), name
