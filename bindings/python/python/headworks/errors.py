"""The exceptions of headworks: one base, and a subclass for each thing that a caller may want to do about it."""

__all__ = [
    "Closed",
    "HeadworksError",
    "InvalidInput",
    "NotFound",
    "OutcomeUnknown",
    "Overloaded",
    "Refused",
    "Unavailable",
    "Undecodable",
    "UsedAfterFork",
]


class HeadworksError(Exception):
    """Something that Headworks could not do. The text names the value, the limit and the remedy."""

    code: str
    """The stable code, such as ``"header-name-reserved"``; docs/errors/ has a page for each."""
    retryable: bool
    """Whether the same call may succeed later."""
    outcome_unknown: bool
    """Whether the record may have been stored all the same: putting it again can duplicate it."""

    def __init__(
        self, message: str = "", code: str = "internal", retryable: bool = False, outcome_unknown: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.outcome_unknown = outcome_unknown

    def __reduce__(self):
        # Exceptions travel between processes (multiprocessing, concurrent.futures) with all they say.
        return type(self), (str(self), self.code, self.retryable, self.outcome_unknown)


class InvalidInput(HeadworksError, ValueError):
    """A record or an option is out of its bounds. The same input is never accepted."""


class NotFound(HeadworksError, LookupError):
    """The stream, or what else was named, does not exist."""


class Refused(HeadworksError):
    """The gateway or the service refuses the call: credentials, permissions, a request for good, a table or worker
    id that is not this application's, or a gateway that speaks another version of the protocol."""


class Unavailable(HeadworksError):
    """The gateway or the service cannot be reached, is draining, or has a failure of its own."""


class Overloaded(HeadworksError):
    """There is no room at the moment: a queue is full, or a limit of the service or the machine is reached."""


class OutcomeUnknown(HeadworksError):
    """The deadline passed, or the connection broke, while a put was in flight: the record may be stored."""


class Undecodable(HeadworksError):
    """A record on the stream, or an item of the lease tables, cannot be read; the consumer stops in front of it
    and skips nothing."""


class Closed(HeadworksError):
    """The producer or consumer is closed, or was closed with records that are not acknowledged."""


class UsedAfterFork(HeadworksError, RuntimeError):
    """The process was forked after headworks had started its threads; a fork does not have them."""
