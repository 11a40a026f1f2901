"""What the clients for blocking and for asyncio code have in common: their arguments, and what calls bring along."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Generic, NoReturn, TypeVar

import grpc

from inferd.arguments import Metadata, MetadataLike, checked_flag, checked_metadata, checked_timeout, merged
from inferd.client import messages
from inferd.client.channel import MAX_MESSAGE_BYTES, ChannelOptions, RetryPolicy, channel_config
from inferd.client.ledger import StreamLedger
from inferd.client.lifetime import Lifetime
from inferd.client.pack import MESSAGE_BYTES
from inferd.endpoint import TLS

#: What a call is started with: its timeout, its metadata, and whether it waits for a connection.
Terms = tuple[float | None, Metadata, bool | None]

Interceptor = TypeVar("Interceptor")


class BaseClient(ABC, Generic[Interceptor]):
    """The arguments of a client, checked, and how those of its calls are put together with them."""

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        allow_insecure_token: bool = False,
        tls: TLS | None = None,
        timeout_s: float | None = 30.0,
        retry: RetryPolicy | None = RetryPolicy(),  # noqa: B008 - frozen, so it can be shared
        round_robin: bool = False,
        metadata: MetadataLike | None = None,
        max_receive_bytes: int = MAX_MESSAGE_BYTES,
        coalesce: bool = False,
        wait_for_ready: bool = False,
        options: ChannelOptions = (),
        interceptors: Sequence[Interceptor] = (),
        compression: grpc.Compression | None = None,
    ) -> None:
        self._config = channel_config(
            address,
            token=token,
            allow_insecure_token=allow_insecure_token,
            tls=tls,
            retry=retry,
            round_robin=round_robin,
            metadata=metadata,
            max_receive_bytes=max_receive_bytes,
            options=options,
            compression=compression,
        )
        self._timeout_s = checked_timeout(timeout_s)
        self._metadata = self._config.metadata
        # Left to gRPC where it is not wanted, so that a service config may ask for it.
        self._waits = checked_flag("wait_for_ready", wait_for_ready) or None
        self._interceptors = self._checked_interceptors(interceptors)
        self._lifetime = Lifetime()
        self._start(coalesce=checked_flag("coalesce", coalesce))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__}: expected to be used where it was made, because it is a connection; it cannot be "
            "pickled or copied, make another one instead"
        )

    @abstractmethod
    def _start(self, *, coalesce: bool) -> None:
        """Make what calls need."""

    @classmethod
    @abstractmethod
    def _interceptor_kinds(cls) -> tuple[type, ...]:
        """Return the classes that interceptors must be of."""

    def _terms(self, timeout_s: float | None, metadata: MetadataLike | None, wait_for_ready: bool | None) -> Terms:
        """Return what a call is started with: its own, and the client's where it says nothing."""
        return (
            self._timeout_s if timeout_s is None else checked_timeout(timeout_s),
            self._metadata if metadata is None else merged(self._metadata, checked_metadata(metadata)),
            self._waits if wait_for_ready is None else checked_flag("wait_for_ready", wait_for_ready),
        )

    def _goes_alone(self, fields: Sequence[bytes], terms: Terms) -> bool:
        """Whether a request is too large for the shared stream, or is called otherwise than that was."""
        _, metadata, waits = terms
        differs = metadata is not self._metadata or (waits or None) is not self._waits
        return differs or sum(map(len, fields)) > MESSAGE_BYTES

    def _ledger(
        self,
        model: str,
        outputs: Sequence[str],
        version: str,
        priority: int,
        timeout_s: float | None,
        *,
        ordered: bool,
    ) -> StreamLedger:
        """Make the ledger of a stream, whose requests have times of their own."""
        writer = messages.request_writer(model, version, outputs, priority, checked_timeout(timeout_s))
        return StreamLedger(writer, ordered=checked_flag("ordered", ordered))

    def _checked_interceptors(self, interceptors: Iterable[Interceptor]) -> tuple[Interceptor, ...]:
        kinds = self._interceptor_kinds()
        if not isinstance(interceptors, Iterable):
            raise TypeError(f"interceptors: expected a sequence, got {type(interceptors).__name__}")
        checked = tuple(interceptors)
        for interceptor in checked:
            if not isinstance(interceptor, kinds):
                raise TypeError(
                    f"interceptors: expected {' or '.join(kind.__name__ for kind in kinds)}, "
                    f"got {type(interceptor).__name__}"
                )
        return checked
