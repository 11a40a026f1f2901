"""The calls of a server that the core still has work for."""

from inferd.rpc.interceptors import InterceptorChain
from inferd.rpc.poll_loop import PollLoop
from inferd.rpc.unread_calls import UnreadCalls


class LiveCalls:
    """Counts calls, and holds what each of them needs of its server.

    A call is live from its acceptance until every event of it has arrived. The server must not be freed before none
    is. The count changes on the poll thread only and may be read in any.
    """

    def __init__(self, loop: PollLoop, interceptors: InterceptorChain) -> None:
        self.loop = loop
        self.interceptors = interceptors
        self.unread = UnreadCalls(loop)
        self.count = 0
