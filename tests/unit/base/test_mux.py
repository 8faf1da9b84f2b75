"""The multiplexer: two of them joined in memory, with every bound looked at."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k1s.base import mux_stream
from k1s.base.mux import MAX_STREAMS, Mux, pump
from k1s.base.mux_frames import MAX_DATA, FrameReader, Kind, MuxError, frame, head
from k1s.base.mux_stream import HIGH_WATER, WINDOW, MuxStream


class End(asyncio.Protocol):
    """Remembers what its stream told it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.eof = self.paused = False
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.eof = True
        return True

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)


class Pair:
    """Two Muxes; `run` moves bytes in pieces of `piece` until both are quiet."""

    def __init__(self, piece: int = 1 << 20, streams: int = MAX_STREAMS, on_open: Callable[[MuxStream], None] | None = None):
        self.piece = piece
        self.accepted: list[MuxStream] = []
        self.server = Mux(lambda: None, streams=streams)
        self.agent = Mux(lambda: None, on_open or self._accept, streams=streams)
        self.moved = 0

    def _accept(self, stream: MuxStream) -> None:
        stream.accept()
        self.accepted.append(stream)

    async def run(self) -> None:
        for _ in range(10_000):
            there, back = self.server.take(), self.agent.take()
            for data, mux in ((there, self.agent), (back, self.server)):
                self.moved += len(data)
                for start in range(0, len(data), self.piece):
                    mux.feed(data[start : start + self.piece])
            await asyncio.sleep(0)
            if not there and not back:
                await asyncio.sleep(0)
                if not self.server._control and not self.agent._control and not self.server._ready and not self.agent._ready:
                    return
        raise AssertionError("it never becomes quiet")

    async def stream(self, target: str = "a:1") -> tuple[MuxStream, End, MuxStream, End]:
        ours = self.server.open(target)
        await self.run()
        theirs = self.accepted[-1]
        one, two = End(), End()
        ours.start(one)
        theirs.start(two)
        return ours, one, theirs, two


async def test_a_stream_carries_bytes_and_half_closes() -> None:
    pair = Pair(piece=7)
    ours, one, theirs, two = await pair.stream("10.0.0.1:80")
    assert theirs.target == "10.0.0.1:80" and ours.opened.done()
    ours.write(b"question")
    ours.write_eof()
    await pair.run()
    assert two.data == b"question" and two.eof and not two.lost
    theirs.write(b"answer")
    theirs.close()
    await pair.run()
    assert one.data == b"answer" and one.eof and one.lost == [None] and two.lost == [None]
    assert len(pair.server) == len(pair.agent) == 0


async def test_bytes_before_the_target_is_connected_wait() -> None:
    waiting: list[MuxStream] = []
    pair = Pair(on_open=waiting.append)
    ours = pair.server.open("a:1")
    ours.start(End())
    ours.write(b"early")
    await pair.run()
    assert not ours.opened.done()
    end = End()
    waiting[0].accept()
    waiting[0].start(end)
    await pair.run()
    assert end.data == b"early" and ours.opened.done()


async def test_a_refused_target_is_that_error() -> None:
    pair = Pair(on_open=lambda stream: stream.refuse(errno.ECONNREFUSED, "connection refused"))
    ours = pair.server.open("a:1")
    await pair.run()
    with pytest.raises(ConnectionRefusedError, match="connection refused"):
        await ours.opened
    assert len(pair.server) == len(pair.agent) == 0


async def test_a_slow_reader_stops_its_stream_only() -> None:
    pair = Pair()
    slow, slow_end, slow_far, slow_reader = await pair.stream()
    quick, _, _, quick_reader = await pair.stream()
    slow_far.pause_reading()
    total = 0
    while not slow_end.paused and total < 10 * WINDOW:
        slow.write(b"x" * 10_000)
        total += 10_000
        await pair.run()
    assert slow_end.paused and total <= WINDOW + HIGH_WATER + 10_000
    assert sum(map(len, slow_far._arrived)) == WINDOW and slow.get_write_buffer_size() <= HIGH_WATER + 10_000
    quick.write(b"y" * 1_000_000)
    await pair.run()
    assert len(quick_reader.data) == 1_000_000
    slow_far.resume_reading()
    await pair.run()
    assert len(slow_reader.data) == total and not slow_end.paused


async def test_streams_take_turns() -> None:
    pair = Pair()
    big, _, _, _ = await pair.stream()
    small, _, _, end = await pair.stream()
    big.write(b"x" * WINDOW)
    small.write(b"y")
    data = pair.server.take(2 * MAX_DATA)
    pair.agent.feed(data)
    assert end.data == b"y"


async def test_a_peer_that_sends_too_much_is_cut_off() -> None:
    pair = Pair()
    await pair.stream()
    pair.accepted[0].pause_reading()
    with pytest.raises(MuxError, match="more than it asked for"):
        for _ in range(WINDOW // MAX_DATA + 1):
            pair.agent.feed(frame(Kind.DATA, 1, b"x" * MAX_DATA))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (head(Kind.DATA, 1, MAX_DATA + 1), "DATA frame of"),
        (b"\x09" + bytes(7), "unknown frame 9"),
        (frame(Kind.DATA, 9, b"x"), "does not exist"),
        (frame(Kind.OPEN, 1, b"a"), "cannot be opened"),
    ],
)
async def test_faults_of_the_other_side(data: bytes, fault: str) -> None:
    mux = Mux(lambda: None)
    with pytest.raises(MuxError, match=fault):
        mux.feed(data)


async def test_late_frames_of_a_stream_that_is_over_are_ignored() -> None:
    pair = Pair()
    ours, _, _, _ = await pair.stream()
    ours.abort()
    for kind in (Kind.OPENED, Kind.END, Kind.CLOSE):
        pair.server.feed(frame(kind, ours.id))
    pair.server.feed(frame(Kind.DATA, ours.id, b"late"))


async def test_there_are_only_so_many_streams() -> None:
    pair = Pair(streams=2)
    pair.server.open("a:1"), pair.server.open("a:1")
    with pytest.raises(OSError, match="2 streams"):
        pair.server.open("a:1")
    agent = Mux(lambda: None, lambda stream: None, streams=2)
    for number in range(1, 6):
        agent.feed(frame(Kind.OPEN, number, b"a:1"))
    assert len(agent) == 4
    kinds = [(kind, number) for kind, number, _ in FrameReader().feed(agent.take())]
    assert kinds == [(Kind.RESET, 5)]


async def test_a_reset_reaches_the_other_protocol() -> None:
    pair = Pair()
    _, one, theirs, two = await pair.stream()
    theirs.abort()
    await pair.run()
    assert isinstance(one.lost[0], ConnectionResetError) and two.lost == [None]


async def test_the_end_of_the_connection_ends_every_stream() -> None:
    pair = Pair()
    _, one, _, _ = await pair.stream()
    opening = pair.server.open("b:2")
    pair.server.close()
    await asyncio.sleep(0)
    assert isinstance(one.lost[0], ConnectionResetError)
    with pytest.raises(ConnectionResetError):
        await opening.opened
    with pytest.raises(ConnectionResetError):
        pair.server.open("c:3")


async def test_a_close_that_nobody_lets_finish_becomes_an_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mux_stream, "LINGER_SECONDS", 0.05)
    pair = Pair()
    ours, one, theirs, two = await pair.stream()
    theirs.pause_reading()
    ours.write(b"x" * (WINDOW + 1000))
    ours.close()
    await pair.run()
    assert len(pair.server) == 1
    await asyncio.sleep(0.1)
    await pair.run()
    assert one.lost == [None] and isinstance(two.lost[0], ConnectionResetError)
    assert len(pair.server) == len(pair.agent) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "back", "pause", "resume", "eof", "run"]),
        st.integers(0, 3),
        st.integers(1, 100_000),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, piece=st.integers(1, 70_000))
def test_every_byte_arrives_once_and_in_order(steps: list[tuple[str, int, int]], piece: int) -> None:
    async def scenario() -> None:
        pair = Pair(piece=max(piece, 500))
        streams = [await pair.stream() for _ in range(4)]
        sent = [bytearray() for _ in streams]
        back = [bytearray() for _ in streams]
        ended = [False] * 4
        for number, (step, which, size) in enumerate(steps):
            ours, _, theirs, _ = streams[which]
            data = bytes([number % 251]) * size
            if step == "write" and not ended[which]:
                ours.write(data)
                sent[which] += data
            elif step == "back":
                theirs.write(data)
                back[which] += data
            elif step == "pause":
                theirs.pause_reading()
            elif step == "resume":
                theirs.resume_reading()
            elif step == "eof":
                ours.write_eof()
                ended[which] = True
            else:
                await pair.run()
            assert all(sum(map(len, far._arrived)) <= WINDOW for _, _, far, _ in streams)
        for _, _, theirs, _ in streams:
            theirs.resume_reading()
        await pair.run()
        for (_, one, _, two), there, here, over in zip(streams, sent, back, ended, strict=True):
            assert two.data == there and one.data == here and two.eof == over

    asyncio.run(scenario())


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=3000), cuts=st.lists(st.integers(1, 200), max_size=20))
def test_rubbish_is_a_mux_error_or_nothing(data: bytes, cuts: list[int]) -> None:
    async def scenario() -> None:
        mux = Mux(lambda: None, lambda stream: stream.start(End()))
        start = 0
        try:
            for cut in [*cuts, len(data) or 1]:
                mux.feed(data[start : start + cut])
                start += cut
        except MuxError:
            return

    asyncio.run(scenario())


class Wire:
    """One end of a connection in memory that holds one chunk."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[bytes] = asyncio.Queue(1)
        self.other = self

    async def read(self) -> bytes:
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        await self.other.incoming.put(data)

    async def close(self) -> None:
        await self.other.incoming.put(b"")


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(1_000_000):
        if happened():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


async def test_pump_moves_megabytes_and_ends_with_the_connection() -> None:
    left, right = Wire(), Wire()
    left.other, right.other = right, left
    woken, far_woken = asyncio.Event(), asyncio.Event()
    accepted: list[MuxStream] = []
    server, agent = Mux(woken.set), Mux(far_woken.set, accepted.append)
    tasks = [asyncio.create_task(pump(server, left, woken)), asyncio.create_task(pump(agent, right, far_woken))]
    stream = server.open("a:1")
    end = End()
    stream.start(End())
    for _ in range(50):
        stream.write(b"z" * 100_000)
    stream.write_eof()
    await until(lambda: bool(accepted))
    accepted[0].accept()
    accepted[0].start(end)
    await asyncio.wait_for(stream.opened, 5)
    await until(lambda: end.eof)
    assert len(end.data) == 5_000_000
    await left.close()
    await right.close()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert server.closed and agent.closed
