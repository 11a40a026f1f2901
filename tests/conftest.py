"""Settings of all tests, in whatever order and wherever they run."""

import gc
import os
import signal
import tempfile

from hypothesis import HealthCheck, settings

# Servers in the process of the tests have gRPC's core configured as in `inferd serve`.
import inferd.core_environment  # noqa: F401  grpc is to find it when it is first imported

# Imports and the collection of tests create millions of objects and hardly any garbage.
gc.disable()

# The duration of an example depends on the machine.
settings.register_profile("inferd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("inferd")

# Under nohup or in the background of a script, servers of tests would inherit that these are ignored.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# Cached verdicts are those of these tests only, not of an older verification.
# A process of a server that was killed may still write into it.
_cache = tempfile.TemporaryDirectory(prefix="inferd-tests-", ignore_cleanup_errors=True)
os.environ["XDG_CACHE_HOME"] = _cache.name

# If Python may not write compiled modules, the many processes of tests would each compile them again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

#: Longer values do not name a case.
_LONGEST_NAME = 60


def pytest_collection_finish() -> None:
    """Exclude modules and collected tests from collections of garbage, each of which would look at all of them."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name cases with binary or long bytes by their argument.

    What is compressed or random differs between the processes that collect the tests, which must find the same names.
    """
    if isinstance(val, bytes) and (len(val) > _LONGEST_NAME or not val.isascii() or not val.decode().isprintable()):
        return argname
    return None
