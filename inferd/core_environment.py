"""How gRPC's core runs in a server. To be imported before grpc, which reads the environment when it is first imported.

What the environment says already, it goes on saying.
"""

import os

#: Variables by name.
ENVIRONMENT = {
    # This process never forks, and readiness for it costs locks on every call.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    # Have the thread that waits for events read from the sockets itself. Otherwise threads of gRPC's own do, which hand
    # each event over: docs/decisions/rpc-one-thread-reads.md has the figures.
    "GRPC_EXPERIMENTS": "-event_engine_listener",
    # The core's own lines quote what peers send, ends of lines included, before anyone has asked who they are.
    "GRPC_VERBOSITY": "NONE",
}

for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
