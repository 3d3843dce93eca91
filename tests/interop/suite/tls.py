"""TLS in front of a plain endpoint: the KPL's daemon speaks nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

from .harness import WORK, Failure

IDENTITY = b"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>\
<Arn>arn:aws:iam::000000000000:user/test</Arn><UserId>test</UserId><Account>000000000000</Account>\
</GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"""


def certificate() -> tuple[Path, Path]:
    """A certificate for the loopback that nothing trusts, made once."""
    folder = WORK / "tls"
    folder.mkdir(parents=True, exist_ok=True)
    chain, key = folder / "certificate.pem", folder / "key.pem"
    if not (chain.exists() and key.exists()):
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=127.0.0.1",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", chain],
            capture_output=True, text=True, check=False,
        )
        if made.returncode != 0:
            raise Failure(f"openssl made no certificate: {made.stderr}")
    return chain, key


class Front:
    """A TLS listener that hands bytes on to a plain endpoint, and answers STS itself: the KPL asks who it is.

    Both ways end with the block.
    """

    def __init__(self, endpoint: str):
        self._target = urlsplit(endpoint)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self):
        self._thread.start()
        listen = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(listen, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"x-amz-target" not in head.lower():
                await self._identity(head, reader, writer)
                return
            upstream = await asyncio.open_connection(self._target.hostname, self._target.port)
            upstream[1].write(head)
            await asyncio.gather(self._copy(reader, upstream[1]), self._copy(upstream[0], writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def _identity(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        await reader.readexactly(int(length[1]) if length else 0)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/xml\r\nconnection: close\r\ncontent-length: "
                     + str(len(IDENTITY)).encode() + b"\r\n\r\n" + IDENTITY)
        await writer.drain()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        writer.close()
