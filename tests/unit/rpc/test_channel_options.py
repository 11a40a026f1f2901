"""The core's arguments."""

from inferd.config.server import ServerSettings
from inferd.rpc.channel_options import channel_options


def test_answers_are_limited_to_what_clients_can_read():
    """The core would send a message above 4 GiB with the length of a part of it."""
    assert dict(channel_options(ServerSettings()))["grpc.max_send_message_length"] == 2**31 - 1
