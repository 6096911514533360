from __future__ import annotations

import asyncio

from engine.gateway.gathering import Gathering


class Recorder(asyncio.Transport):
    """Remembers what was written, each piece apart."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


async def test_what_is_written_in_one_turn_leaves_in_one_piece() -> None:
    under = Recorder()
    gathering = Gathering(under, asyncio.get_running_loop())
    gathering.write(b"head ")
    gathering.write(b"body")
    assert under.written == []
    await asyncio.sleep(0)
    assert under.written == [b"head body"]
    gathering.write(b"more")
    await asyncio.sleep(0)
    assert under.written == [b"head body", b"more"]
    assert gathering.get_extra_info("peername") == ("127.0.0.1", 1)


async def test_much_is_not_held_back() -> None:
    under, large = Recorder(), b"x" * 100_000
    gathering = Gathering(under, asyncio.get_running_loop())
    gathering.write(b"head")
    gathering.write(large)
    assert under.written == [b"head", large]
    for _ in range(3):
        gathering.write(b"y" * 30_000)
    assert under.written[2:] == [b"y" * 90_000]
    await asyncio.sleep(0)
    assert len(under.written) == 3


async def test_closing_writes_the_rest_and_nothing_is_written_after_it() -> None:
    under = Recorder()
    gathering = Gathering(under, asyncio.get_running_loop())
    gathering.write(b"last")
    gathering.close()
    assert under.written == [b"last"]
    gathering.write(b"too late")
    await asyncio.sleep(0)
    assert under.written == [b"last"]
    assert gathering.is_closing()
