"""The file with a job's identity and plan. Its checksum tells whether both are as they were written. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from inferd.batch.identity import Identity
from inferd.batch.plan import Plan, from_json

#: To be raised when the same plan would be run in other batches.
_SCHEMA = "inferd-batch/1"


class PlanDocumentError(Exception):
    """The file holds no plan. The text says why, without the file."""


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """What is in the file: the plan, and the identity of its job as JSON, with its ``digest``."""

    digest: str
    identity: Mapping[str, Any]
    plan: Plan


def written(identity: Identity, plan: Plan) -> bytes:
    """Return the content of the file."""
    content = {"schema": _SCHEMA, "hash": identity.digest, "identity": asdict(identity), "plan": plan.as_json()}
    return orjson.dumps(content | {"checksum": _checksum(content)})


def parsed(content: bytes) -> PlanDocument:
    """Return what ``content`` holds. Raises `PlanDocumentError`."""
    try:
        document = json.loads(content)
        if document["schema"] != _SCHEMA:
            raise PlanDocumentError(f'expected the schema "{_SCHEMA}" of this version, got "{document["schema"]}"')
        if document["checksum"] == _checksum(document):
            return PlanDocument(document["hash"], document["identity"], from_json(document["plan"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PlanDocumentError("it is damaged") from error
    raise PlanDocumentError("it was changed after it was written: its checksum is another")


def _checksum(document: Mapping[str, Any]) -> str:
    """Return the hash of all but the checksum."""
    rest = {name: value for name, value in document.items() if name != "checksum"}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()
