"""Requests on their way from the caller to gRPC, for blocking code."""

import threading
from collections.abc import Iterable, Iterator

from inferd.client.ledger import StreamInput, StreamLedger, check_elements, check_window
from inferd.client.pack import Pack


class Outbox:
    """Requests that gather while gRPC takes those before them.

    gRPC's sending thread runs `messages`, any other thread the rest. Nothing is held back: a message has what is there
    when gRPC asks for one.
    """

    def __init__(self) -> None:
        # Two kinds of threads wait here, but never at once: senders for room, gRPC for anything at all.
        self._changed = threading.Condition(threading.Lock())
        self._pack = Pack()
        self._ended = False

    def put(self, request: bytes) -> None:
        """Add a request, written as bytes. Never blocks."""
        with self._changed:
            self._pack.add(request)
            self._changed.notify()

    def wait_for_room(self) -> bool:
        """Wait until less than a message has gathered; False if no more is wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not self._pack.full)
            return not self._ended

    def end(self) -> None:
        """Let the messages end after what has gathered."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def messages(self) -> Iterator[bytes]:
        """Yield messages, each with all that has gathered and fits."""
        while (message := self._take()) is not None:
            yield message

    def _take(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._pack)
            if not self._pack:
                return None
            message = self._pack.take()
            self._changed.notify()
            return message


class Feed:
    """The requests of a stream.

    A thread of its own reads the caller's iterable, so that an element that is slow to come does not keep those before
    it; the thread that reads the results calls `free_slot` and `stop`. Invariant: a slot is taken before an element is
    read and freed when its item is handed over, so that no more than ``max_in_flight`` elements are between the two.
    ``failure`` is set before the results end, and read after.
    """

    def __init__(self, inputs: Iterable[StreamInput], ledger: StreamLedger, max_in_flight: int) -> None:
        check_window(max_in_flight)
        check_elements(inputs, asynchronous=False)
        self._elements = iter(inputs)
        self._ledger = ledger
        self._slots = threading.Semaphore(max_in_flight)
        self._outbox = Outbox()
        self.failure: BaseException | None = None

    def messages(self) -> Iterator[bytes]:
        """Start to read, and yield messages; ends when the inputs end, raise, or are no longer wanted."""
        threading.Thread(target=self._read, name="inferd-client-inputs", daemon=True).start()
        yield from self._outbox.messages()

    def free_slot(self) -> None:
        """Let one more element be read."""
        self._slots.release()

    def stop(self) -> None:
        """Read no further."""
        self._outbox.end()
        self._slots.release()

    def _read(self) -> None:
        try:
            while self._slots.acquire() and self._outbox.wait_for_room():
                self._outbox.put(self._ledger.open(next(self._elements)))
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - what the caller's code raises goes back to the caller
            self.failure = error
        finally:
            self._outbox.end()
