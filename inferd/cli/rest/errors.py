"""The error of a request over HTTP. Imports nothing, as all commands import it."""


class RestError(Exception):
    """A request without a result: ``status`` is the name of the status that it would have over gRPC.

    ``http_status`` is None if there was no answer. ``is_protocol_error``: the answer had an error in the form of the
    protocol. ``retry_after_s`` is the server's hint. ``may_retry``: the server did not get the request, or refused it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: str,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        request_id: str = "",
        may_retry: bool = False,
        is_protocol_error: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.may_retry = may_retry
        self.is_protocol_error = is_protocol_error
