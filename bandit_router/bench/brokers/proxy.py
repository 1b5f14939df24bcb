"""A TCP proxy that misbehaves as networks do, to stand in front of a broker."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Literal, Self, get_args

from bandit_router.bench.brokers.processes import LOOPBACK, free_port

Mode = Literal["pass", "reset", "drop_responses", "black_hole", "delay"]

_CHUNK = 65536
_QUEUED = 64


class FaultProxy:
    """Forwards connections to a port of this machine, or fails as ``mode`` says.

    - ``pass``: forwards.
    - ``reset``: connections are reset (RST), open ones at once and new ones on arrival.
    - ``drop_responses``: requests arrive and are carried out, their answers never come back.
    - ``black_hole``: new connections are accepted and nothing moves in any of them. What is under
      way arrives when the mode changes, as after the packets' retransmission.
    - ``delay``: everything arrives ``delay_s`` later, in both directions; nothing gets slower.

    A change of mode is in force when the assignment returns. A connection that lost an answer
    cannot be mended: it is reset when its mode ends.

    Args:
        upstream: the port that the broker listens on.
        delay_s: of the mode ``delay``, seconds each way.
    """

    def __init__(self, upstream: int, *, delay_s: float = 0.2) -> None:
        self.upstream, self.delay_s = upstream, delay_s
        self.port = free_port()
        self.accepted = 0
        self.dropped_bytes = 0
        self._mode: Mode = "pass"
        self._links: set[_Link] = set()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self.moving = asyncio.Event()  # not set in a black hole

    @property
    def bootstrap(self) -> str:
        """The address clients use. The broker must advertise it too."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def mode(self) -> Mode:
        """What happens to connections now."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"no mode {mode!r}; there are: {', '.join(get_args(Mode))}")
        self._call(self._change(mode))

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._links)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._call(self._listen())

    def close(self) -> None:
        """Reset every connection and stop listening."""
        self._call(self._shut())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _listen(self) -> None:
        self.moving.set()
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def _change(self, mode: Mode) -> None:
        self._mode = mode
        for link in list(self._links):
            if mode == "reset" or link.lost_an_answer:
                link.reset()
        if mode == "black_hole":
            self.moving.clear()
        else:
            self.moving.set()

    async def _shut(self) -> None:
        self._server.close()
        links = list(self._links)
        for link in links:
            link.reset()
        await asyncio.gather(*(link.done.wait() for link in links))
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
            link.done.set()


class _Link:
    """One connection of a client and the one to the broker that belongs to it."""

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.lost_an_answer = False
        self.done = asyncio.Event()
        self._proxy, self._reader, self._writers = proxy, reader, [writer]
        self._task = asyncio.current_task()

    def reset(self) -> None:
        """End both connections, the client's by RST."""
        self._task.cancel()

    async def run(self) -> None:
        """Forward until one side ends; a reset, or a broker that is not there, ends it by RST."""
        end = _reset
        with contextlib.suppress(asyncio.CancelledError, OSError):
            if self._proxy.mode != "reset":
                await self._forward()
                end = asyncio.StreamWriter.close
        for writer in self._writers:
            end(writer)

    async def _forward(self) -> None:
        await self._proxy.moving.wait()
        reader, writer = await asyncio.open_connection(LOOPBACK, self._proxy.upstream)
        self._writers.append(writer)
        tasks = [
            asyncio.ensure_future(self._pump(self._reader, writer, answers=False)),
            asyncio.ensure_future(self._pump(reader, self._writers[0], answers=True)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        """Forward one direction until it ends."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED)
        reading = asyncio.ensure_future(self._read(reader, queue))
        try:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - self._proxy.loop.time())
                await self._proxy.moving.wait()
                if answers and self._proxy.mode == "drop_responses":
                    self._proxy.dropped_bytes += len(data)
                    self.lost_an_answer = True
                    continue
                if not data:
                    return
                writer.write(data)
                await writer.drain()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(
        self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        """Note when each piece is due; an empty one is the end."""
        data = b"?"
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:
                data = b""
            late = self._proxy.delay_s if self._proxy.mode == "delay" else 0.0
            await queue.put((self._proxy.loop.time() + late, data))


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close without a farewell: the other side gets RST."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
