"""What holds for all tests, in whatever order and wherever they run."""

import os
import signal
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

# Servers in the process of the tests run on gRPC's core as `inferd serve` has it.
import inferd.core_environment  # noqa: F401  grpc is to find it when it is first imported

# How long an example takes says something about the machine, too.
settings.register_profile("inferd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inferd")

# Under nohup or in the background of a script, servers that tests start would inherit that these are ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# What is kept between starts of a server is kept for these tests only: no verdict of an older proof counts here.
_cache = tempfile.TemporaryDirectory(prefix="inferd-tests-")
os.environ["XDG_CACHE_HOME"] = _cache.name

# Where Python may not keep what it compiles, the many processes that tests start would each compile all of it again.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(_cache.name) / "bytecode")
