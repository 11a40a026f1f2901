"""Starts a server for a measurement, and checks its answers first."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import check
from benchmarks.models import Model
from benchmarks.process import Placement, Server, free_port
from benchmarks.servers import Contender, Job, Setting


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """A server that answers. ``folder`` is a directory of its own, removed with it."""

    server: Server
    port: int
    folder: Path


@contextmanager
def serving(
    contender: Contender,
    model: Model,
    placement: Placement,
    setting: Setting | None,
    *,
    environment: Mapping[str, str] | None = None,
    overloaded: bool = False,
) -> Iterator[Serving]:
    """Start a server, compare its answers with ONNX Runtime's, and stop it on exit.

    ``environment`` is added to its own. A server that will be ``overloaded`` is killed if it would otherwise work
    through its backlog first. Raises the error that keeps it from answering.
    """
    with TemporaryDirectory() as name:
        folder, port, wire = Path(name), free_port(), contender.wire
        launch = contender.launch(Job(model=model, setting=setting, port=port, folder=folder))
        command, leaves = [*placement.server, *launch.command], launch.leaves if overloaded else None
        added = {**launch.environment, **(environment or {})}
        with Server(command, added, folder, killed_leaving=leaves) as server:
            session, first = check.load(model), model.rows()[0]
            server.wait_ready(lambda: check.check_one(wire, model, port, session, first))
            check.check_many(wire, model, port)
            yield Serving(server=server, port=port, folder=folder)


def own_setting(contender: Contender, placement: Placement) -> Setting | None:
    """Return None (the defaults) for inferd, and all cores in one run for the others."""
    return None if contender.ours else Setting(placement.server_cores, 1)
