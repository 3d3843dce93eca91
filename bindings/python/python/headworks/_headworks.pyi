"""The native half of headworks. Use the names that the package `headworks` exports."""

from collections.abc import Awaitable, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, Unpack

from .errors import HeadworksError

__version__: str

class Record:
    """A partition key, headers and data. Immutable."""

    def __new__(
        cls,
        key: str,
        data: bytes | bytearray | memoryview,
        headers: dict[str, str] | None = None,
        explicit_hash_key: int | None = None,
    ) -> Self:
        """Makes a record.

        :param key: 1 to 256 characters. Records of one key keep their order.
        :param data: the payload; opaque, and copied.
        :param headers: what routers route by: at most 32; names are lower-case ASCII tokens of up to 64 bytes
            that do not begin with ``hw-``; values have up to 2,048 bytes of UTF-8, all together up to 8,192.
        :param explicit_hash_key: 0 to 2**128 - 1; places the record on a shard regardless of its key.
        :raises errors.InvalidInput: a value is out of these bounds.
        """

    @property
    def key(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str]:
        """A copy. Where a foreign writer repeated a name, its first value; see `header_items`."""

    @property
    def explicit_hash_key(self) -> int | None: ...
    @property
    def traceparent(self) -> str | None:
        """The record's identity and place in its trace, as W3C text. None until a producer has minted it."""

    @property
    def created(self) -> datetime | None:
        """When the identity was minted, in UTC."""

    def header_items(self) -> list[tuple[str, str]]:
        """All headers in their order, repeated names included."""

    def __eq__(self, other: object, /) -> bool: ...

class Delivered(Record):
    """A record as a consumer delivers it: where it was found, and the means to say that it is done."""

    @property
    def stream(self) -> str: ...
    @property
    def shard(self) -> str: ...
    @property
    def sequence_number(self) -> str:
        """The Kinesis record's sequence number, a decimal number."""

    @property
    def sub_sequence_number(self) -> int:
        """The place in the Kinesis record, from 0."""

    @property
    def arrival(self) -> datetime:
        """When the Kinesis record arrived at the stream, in UTC."""

    def ack(self) -> bool:
        """Says that the record is done. Does not wait, and may be called from any thread, in any order.

        A shard is checkpointed up to its first record that is not acknowledged. False if the record was
        acknowledged before, or given back because its consumer was closed.
        """

class Receipt:
    """Where a record is; or that the gateway has it in its spool, and its place is not known yet."""

    @property
    def spooled(self) -> bool:
        """The gateway has the record on disk and will put it on the stream. The rest is None then."""
    @property
    def shard(self) -> str | None: ...
    @property
    def sequence_number(self) -> str | None: ...
    @property
    def sub_sequence_number(self) -> int | None: ...
    @property
    def attempts(self) -> int | None:
        """How often it was put on the stream: 1 unless something went wrong on the way."""

    def __eq__(self, other: object, /) -> bool: ...

class Report(TypedDict):
    """What became of a producer's records, from its first to its last."""

    stored: int
    failed: int
    unknown: int
    abandoned: int
    """How many of the failed and unknown ones were given up because the time to close was over."""

class ProducerOptions(TypedDict, total=False):
    """The keyword arguments of a producer. Times are in seconds."""

    endpoints: list[str] | None
    """The addresses of several gateways, instead of one. Each key has one of them, also through failover."""
    token: str | None
    """What is shown to the gateway: an API key or a JWT. Default: nothing."""
    ca_certificates: bytes | None
    """The authorities (PEM) that sign an ``https`` gateway's certificate. Default: the system's."""
    timeout: float | None
    """How long each record may take until it is answered. Default 30; 0.001 to 600."""
    connect_timeout: float | None
    """How long the first use tries to connect. Default 10; 0.001 to 600."""
    longest_pause: float | None
    """The longest pause between attempts to connect again. Default 5; 0.001 to 60."""
    buffer_offline: bool | None
    """Whether records may wait, in the buffer, while no gateway answers. Default no."""
    buffer_bytes: int | None
    """The most bytes of unanswered records; puts wait for room. Default 32 MiB; 1 KiB to 4 GiB."""
    batch_records: int | None
    """The most records of one message. Default 1,000; 1 to 10,000."""
    batch_bytes: int | None
    """The most bytes of one message. Default 1 MiB; 1 KiB to 16 MiB."""

class Producer:
    """Sends records to a gateway, over one connection. May be shared by threads.

    Connects when it is entered or first used. Not usable in a fork of the process that made it.
    """

    def __new__(
        cls, endpoint: str | None = None, stream: str | None = None, **options: Unpack[ProducerOptions]
    ) -> Self:
        """Makes a producer.

        :param endpoint: the gateway's address; ``http://127.0.0.1:4400`` if left out.
        :param stream: the inbound stream; the gateway's default stream if left out.
        """

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        exception: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    def put(self, record: Record, *, traceparent: str | None = None) -> Receipt:
        """Sends a record and waits until its stream has it.

        A delivered record that is put again keeps its identity.

        :param traceparent: the span in which the record is created; it begins a trace of its own if left out.
        :raises errors.HeadworksError: the record is not known to be stored; see the subclasses.
        """

    def put_many(
        self, records: Iterable[Record], *, traceparent: str | None = None
    ) -> list[Receipt | HeadworksError]:
        """Sends records without waiting for each, then for all: one answer per record, in their order.

        What went wrong with a record is returned in its place; only what concerns all of them is raised.
        """

    def flush(self) -> None:
        """Waits until every record that was sent before, by any thread, is answered."""

    def close(self, timeout: float | None = None) -> Report:
        """Takes no more records and waits for open answers, for 30 seconds unless told otherwise."""

class AsyncProducer:
    """`Producer` for asyncio. Giving up an await does not take back what was sent."""

    def __new__(
        cls, endpoint: str | None = None, stream: str | None = None, **options: Unpack[ProducerOptions]
    ) -> Self: ...
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        exception: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Awaitable[None]: ...
    def put(self, record: Record, *, traceparent: str | None = None) -> Awaitable[Receipt]: ...
    def put_many(
        self, records: Iterable[Record], *, traceparent: str | None = None
    ) -> Awaitable[list[Receipt | HeadworksError]]: ...
    def flush(self) -> Awaitable[None]: ...
    def close(self, timeout: float | None = None) -> Awaitable[Report]: ...

class ConsumerOptions(TypedDict, total=False):
    """The keyword arguments of a consumer. Times are in seconds."""

    start: Literal["TRIM_HORIZON", "LATEST"] | datetime | None
    """Where an application without leases begins. Default: at the oldest record. A datetime needs a zone."""
    endpoint_url: str | None
    """Where Kinesis and DynamoDB are. Default: as the environment says (AWS_ENDPOINT_URL…), else AWS."""
    kinesis_endpoint_url: str | None
    dynamodb_endpoint_url: str | None
    region: str | None
    """The AWS region. Default: as the environment says."""
    consumer_name: str | None
    """The fan-out consumer, registered if it is not yet. Default: the application's name."""
    consumer_arn: str | None
    """A fan-out consumer that somebody else registered."""
    worker_id: str | None
    """This process among the application's workers; unique while it runs. Default: random."""
    lease_table: str | None
    """Default: the application's name."""
    worker_table: str | None
    """The heartbeats' table. Default: the application's name and ``-workers``."""
    take_over_after: float | None
    """After how long without a sign of life a worker's leases are taken over. Default 2; 1 to 300."""
    checkpoint_interval: float | None
    """How long a checkpoint may wait to be written; closing writes at once. Default 1; 0 to 3,600."""
    drain_timeout: float | None
    """How long records in hand may take when the consumer is closed. Default 30; 0.1 to 3,600."""
    startup_timeout: float | None
    """How long tables, stream and consumer may take to become usable. Default 60; 0.1 to 3,600."""
    call_timeout: float | None
    """How long one call of AWS may take. Default 10; 0.1 to 300."""
    max_unacknowledged: int | None
    """Records of one shard that are delivered before acknowledgements are waited for. Default 10,000."""
    read_ahead_bytes: int | None
    """Bytes read ahead per shard. Default 8 MiB; 64 KiB to 1 GiB."""
    dedup_window: float | None
    """For how long a record's identity is remembered, in order to drop repeats, by arrival at the stream. 0 turns
    it off. Default 60; 0 to 900."""
    dedup_max_identities: int | None
    """The most identities remembered per shard, at 70 to 140 bytes each; beyond them the oldest are forgotten
    before their time, and their repeats delivered. Default 1,000,000; 1 to 100,000,000."""
    undecodable: Literal["stop", "deliver_raw"] | None
    """What happens with a Kinesis record that cannot be taken apart. Default: the consumer stops."""

class Consumer(Iterator[Delivered]):
    """Reads one stream as one worker of an application; workers share the shards by leases in DynamoDB.

    Records come in order within each shard, at least once. Starts when it is entered or first iterated. The
    iteration goes on until the consumer is closed; if the consumer stops for another reason, it raises that.
    Not usable in a fork of the process that made it.
    """

    def __new__(cls, application: str, stream: str, **options: Unpack[ConsumerOptions]) -> Self:
        """Checks the arguments; nothing is contacted yet.

        :param application: the name of the lease table and of the fan-out consumer: one name per stream.
        :param stream: the stream's name or ARN.
        :raises errors.InvalidInput: a value is out of its bounds.
        """

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        exception: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Delivered: ...
    def checkpoint(self) -> int:
        """Acknowledges every record delivered so far, and says how many that were. Does not wait.

        A record that is never acknowledged, in this way or by `Delivered.ack`, holds its shard's checkpoint,
        and the shard itself when `max_unacknowledged` records wait behind it or when it ends.
        """

    def status(self) -> dict[str, Any]:
        """Counters and states; before the start only ``phase``, which is ``"new"``.

        ``phase`` is new, starting, running, draining or stopped; ``caught_up`` whether every shard was read to its
        newest record. Counted since the start: ``delivered``; ``repeats_dropped``, whose identity had come within
        `dedup_window`; ``identities_forgotten`` before that was over, because of `dedup_max_identities`;
        ``duplicates_skipped``, which were done before; ``misplaced_skipped``; ``damaged``; ``checkpoints``;
        ``shards_expired``; ``checkpoints_trimmed``. ``leases_active`` and ``leases_unowned`` are those of all workers.
        ``shards`` has, for
        each shard of this worker, ``delivered``, ``millis_behind`` and ``checkpoint``.
        """

    def close(self, *, wait_for_acks: bool = False) -> None:
        """Stops reading, writes the checkpoints, gives the leases up and ends the iteration.

        Records that were delivered and not acknowledged come again. With ``wait_for_acks``, other threads
        have `drain_timeout` to acknowledge what they hold.
        """

class AsyncConsumer:
    """`Consumer` for asyncio; `headworks.AsyncConsumer` adds the iterator."""

    def __new__(cls, application: str, stream: str, **options: Unpack[ConsumerOptions]) -> Self: ...
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        exception: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Awaitable[None]: ...
    def checkpoint(self) -> int: ...
    def status(self) -> dict[str, Any]: ...
    def close(self, *, wait_for_acks: bool = False) -> Awaitable[None]: ...
    def _ready(self) -> Awaitable[bool]: ...
    def _take(self) -> Delivered | None: ...

def _shutdown() -> None: ...
