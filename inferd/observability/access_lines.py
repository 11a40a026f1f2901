"""What a line of the access log says of an RPC, and in which words."""

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from inferd import request_id
from inferd.observability.line_writer import Record, Renderer
from inferd.observability.rendering import Fields, utc
from inferd.observability.timing import BatchTiming

#: One RPC that ended: what makes a line of it, when it ended (s since the epoch), its duration (s), level, peer,
#: method, status, error and annotations. A plain tuple, because one is made for each RPC.
AccessRecord = tuple[Renderer, float, float, int, str, str, str, str, Mapping[str, Any]]

_LEVELS = {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}

#: Annotations that few calls have, and their fields: the counts of a stream, as far as it got, its trace, and the id in
#: the message of a call that its metadata has named already.
_RARE = {
    **{name: name for name in ("requests", "messages_in", "messages_out", "trace_id", "span_id")},
    request_id.OWN_KEY: "id",
}

_END = "}\n"


def json_lines(records: Sequence[Record]) -> bytes:
    """Write one JSON object for each `AccessRecord`.

    By hand: a dictionary of the fields for each line and a general writer take four times as long. Calls that end
    together are mostly of one caller and of one batch, so most of a line is the same as in the one before.
    """
    pieces: list[str] = []
    head = names = run = ""
    last_ms = last_level = last_named = last_batch = last_rows = None
    for _, at, total_s, level, peer, method, status, error, facts in records:
        get = facts.get
        ms = int(at * 1000)
        if ms != last_ms or level != last_level:
            last_ms, last_level = ms, level
            head = f'{{"time":"{utc(at)}","level":"{_LEVELS[level]}","event":"access","request_id":'
        named = (peer, method, get("model"), get("version"), status, get("principal"))
        if named != last_named:
            last_named, names = named, _names(*named)
        # Told after the time in the queue, and so read before it: a call that was cut off may be told of even now.
        batch, rows = get("batch"), get("rows")
        if batch is not last_batch or rows != last_rows:
            last_batch, last_rows, run = batch, rows, _run(batch, rows)
        # Percent formats, because they take less time than f-strings for numbers.
        if batch is None:
            durations = "%.3f" % (total_s * 1000)
        else:
            durations = '%.3f,"queue_ms":%.3f' % (total_s * 1000, facts["queue_s"] * 1000)  # noqa: UP031  see above
        is_plain = not (error or "messages_in" in facts or "trace_id" in facts or request_id.OWN_KEY in facts)
        rest = _END if is_plain else _rest(facts, error)
        pieces += (head, _json(facts[request_id.KEY]), names, durations, run, rest)
    return "".join(pieces).encode()


def human_lines(render: Callable[[Fields], bytes]) -> Renderer:
    """Return what has ``render`` write the fields of each `AccessRecord`."""

    def lines(records: Sequence[Record]) -> bytes:
        return b"".join(render(json.loads(line)) for line in json_lines(records).splitlines())

    return lines


@functools.lru_cache(maxsize=256)
def _names(peer: str, method: str, model: object, version: object, status: str, principal: object) -> str:
    """Write the fields of a call that are mostly the same for all calls of a caller, and the name of the next one."""
    names = {"peer": peer, "method": method, "model": model, "version": version, "status": status}
    names["principal"] = principal
    fields = (f',"{name}":{_json(value)}' for name, value in names.items() if value is not None)
    return f'{"".join(fields)},"total_ms":'


def _run(batch: BatchTiming | None, rows: int | None) -> str:
    """Write the fields of the batch that a request was in, and how many rows of it were its own."""
    ran = "" if batch is None else f',"run_ms":{batch.run_s * 1000:.3f},"batch_rows":{batch.rows}'
    return ran if rows is None else f'{ran},"rows":{rows}'


def _rest(facts: Mapping[str, object], error: str) -> str:
    """Write what only some calls have to tell."""
    fields = [f',"{name}":{_json(facts[key])}' for key, name in _RARE.items() if key in facts]
    return "".join((*fields, f',"error":{_json(error)}' if error else "", _END))


def _json(text: object) -> str:
    try:
        return orjson.dumps(text, default=str).decode()
    except TypeError:
        # File names that are not UTF-8: rare, and no reason to lose this line and its neighbours.
        return json.dumps(text, default=str)
