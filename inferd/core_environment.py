"""Configure gRPC's core for a server. Import this before grpc, which reads the environment when it is first imported.

Variables that are already set are kept.
"""

import os

#: Variables by name.
ENVIRONMENT = {
    # This process never forks, and fork support takes locks on every call.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    # Let the thread that waits for events read from the sockets itself, rather than threads of gRPC that hand over each
    # event: docs/decisions/rpc-one-thread-reads.md has the measurements.
    "GRPC_EXPERIMENTS": "-event_engine_listener",
    # The core's log lines quote unescaped text of peers, even before authentication.
    "GRPC_VERBOSITY": "NONE",
}

for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
