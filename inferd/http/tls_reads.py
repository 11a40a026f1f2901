"""The memory that asyncio holds for each TLS connection."""

import asyncio


def limit_tls_reads(transport: asyncio.BaseTransport, size: int) -> None:
    """Read ``size`` bytes at a time from ``transport`` if it is one of TLS; to be called when that is complete.

    asyncio keeps a buffer of 256 KiB for each connection otherwise, and offers no setting. A version of it that has
    other names than these keeps its buffer.
    """
    protocol = getattr(transport, "_ssl_protocol", None)
    if protocol is None or not (hasattr(protocol, "_ssl_buffer") and hasattr(protocol, "_ssl_buffer_view")):
        return
    protocol.max_size = size
    protocol._ssl_buffer = bytearray(size)
    protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)
