"""Clients that ask whether to send the body (``Expect: 100-continue``)."""

from aiohttp import StreamReader, web

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ExpectingRequest(web.BaseRequest):
    """A request whose client sends the body when it is told to, which happens when that is first read."""

    is_told = False

    @property
    def content(self) -> StreamReader:
        """The body; the client is told to send it."""
        if not self.is_told:
            self.is_told = True
            if self.transport is not None:
                self.transport.write(_CONTINUE)
        return super().content

    async def read(self) -> bytes:
        """Return the body; the client is told to send it."""
        self.content  # noqa: B018  (tells the client)
        return await super().read()
