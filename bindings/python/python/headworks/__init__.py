"""Producer and consumer of Headworks.

A producer hands records to a gateway; a consumer reads a stream and remembers, in DynamoDB, how far it got.
Each comes as a pair: ``Producer`` and ``Consumer`` wait without holding the interpreter's lock,
``AsyncProducer`` and ``AsyncConsumer`` are for asyncio.

    import headworks

    with headworks.Producer("http://127.0.0.1:4400") as producer:
        producer.put(headworks.Record("session-42", b'{"total": 12}', {"type": "order.placed"}))

    with headworks.Consumer("order-mails", "orders") as consumer:
        for record in consumer:
            print(record.key, record.headers, record.data)
            record.ack()
"""

import atexit as _atexit

from . import errors
from ._async import AsyncConsumer
from ._headworks import AsyncProducer, Consumer, Delivered, Producer, Receipt, Record, __version__, _shutdown
from .errors import HeadworksError

# Spans that still wait are exported before the interpreter goes.
_atexit.register(_shutdown)

__all__ = [
    "AsyncConsumer",
    "AsyncProducer",
    "Consumer",
    "Delivered",
    "HeadworksError",
    "Producer",
    "Receipt",
    "Record",
    "__version__",
    "errors",
]
