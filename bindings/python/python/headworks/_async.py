"""The asynchronous consumer's iterator: a wait may be given up at any time, a record that was taken may not."""

import asyncio
from typing import Self

from . import _headworks

# A consumer that has much to catch up with never has to wait; other tasks get their turn all the same.
_RECORDS_PER_TURN = 256


class AsyncConsumer(_headworks.AsyncConsumer):
    """`Consumer` for asyncio: ``async with`` and ``async for``. `ack` and `checkpoint` do not wait."""

    _taken = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _headworks.Delivered:
        if self._taken >= _RECORDS_PER_TURN:
            self._taken = 0
            await asyncio.sleep(0)
        while (record := self._take()) is None:
            if not await self._ready():
                raise StopAsyncIteration
        self._taken += 1
        return record
