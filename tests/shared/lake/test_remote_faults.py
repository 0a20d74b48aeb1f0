"""A lake in a store that fails: errors of the store, throttling, connections that are cut, answers that are lost."""

from __future__ import annotations

import http.client
import http.server
import os
import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from shared.errors import LakeError
from shared.lake import layout, read, write
from shared.types import NS
from tests.shared.lake import receipts as r
from tests.shared.lake.conftest import stand_for
from tests.shared.lake.test_wal import START_NS
from tests.shared.lake.test_write import record, seconds_frame

KINDS = ("error", "slow_down", "unheard", "unanswered", "half")
SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


class Proxy:
    """Stands between a client and a store, and spoils requests by seed.

    error, slow_down   500 or 503 with the words of S3, the request is not passed on
    unheard            the connection is closed before the request is passed on
    unanswered         it is passed on and acted on, the connection is closed without the answer
    half               it is acted on, and half of the answer comes
    """

    def __init__(self, store: tuple[str, int], seed: int, share: float) -> None:
        self.share, self.struck = share, Counter[str]()
        self._store, self._random, self._lock = store, random.Random(seed), threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, client: http.server.BaseHTTPRequestHandler) -> None:
        with self._lock:
            strikes = self._random.random() < self.share
            kind = self._random.choice(KINDS) if strikes else ""
        self.struck[kind or "passed"] += 1
        body = client.rfile.read(int(client.headers.get("Content-Length") or 0))
        if kind in ("error", "slow_down"):
            status, text = (500, INTERNAL) if kind == "error" else (503, SLOW_DOWN)
            self._send(client, status, {"Content-Type": "application/xml"}, text)
            return
        if kind == "unheard":
            client.close_connection = True
            return
        connection = http.client.HTTPConnection(*self._store)
        connection.request(client.command, client.path, body, dict(client.headers.items()))
        response = connection.getresponse()
        answer, headers = response.read(), dict(response.getheaders())
        connection.close()
        if kind == "unanswered":
            client.close_connection = True
            return
        self._send(client, response.status, headers, answer, is_half=kind == "half")

    @staticmethod
    def _send(
        client: http.server.BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        body: bytes,
        *,
        is_half: bool = False,
    ) -> None:
        client.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                client.send_header(name, value)
        length = headers.get("Content-Length", str(len(body))) if client.command == "HEAD" else str(len(body))
        client.send_header("Content-Length", length)
        client.end_headers()
        if client.command != "HEAD":
            client.wfile.write(body[: len(body) // 2] if is_half else body)
        client.close_connection = client.close_connection or is_half


@pytest.fixture
def store(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Proxy, str]]:
    """Return a proxy in front of the store, which clients that are made now go through, and an empty lake's address."""
    host, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
    proxy = Proxy((host, int(port)), 1, 0.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy, f"{s3}/{uuid.uuid4()}/lake"
    proxy.close()


def tables(root: Path) -> list[pl.DataFrame]:
    return [read.collect(read.scan(root, table, r.SOURCE)) for table in (*layout.RAW, "seconds")]


def fill(root: Path, value: float) -> None:
    """Record and seal an hour in two pieces, and derive a table."""
    for session, first in (("a", 0), ("b", 5)):
        record(root, session, START_NS + first * NS, START_NS + (first + 5) * NS)
        write.seal(root, r.SOURCE, r.HOUR)
    write.write_table(root, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, value=value), {})


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 8))])
def test_store_that_fails_one_time_in_five_is_asked_again(
    seed: int, store: tuple[Proxy, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Through errors, throttling and cut connections, PUTs whose answer was lost among them: what is written is what a
    lake on a disk holds, and another machine reads just that."""
    proxy, uri = store
    here, there = (stand_for(tmp_path_factory.mktemp(name) / "lake", uri) for name in ("here", "there"))
    alone = tmp_path_factory.mktemp("alone") / "folder"
    proxy._random.seed(seed)
    proxy.share = 0.2

    fill(here, 1.0)
    fill(alone, 1.0)

    for root in (here, there):
        assert all(a.equals(b) for a, b in zip(tables(root), tables(alone), strict=True))
    assert write.unsealed(here, r.SOURCE) == []
    assert len(proxy.struck) == len(KINDS) + 1, proxy.struck


@pytest.mark.parametrize("passes", [0, 3, 8])
def test_store_that_fails_for_good_is_one_sentence_and_nothing_is_lost(
    passes: int, store: tuple[Proxy, str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From some request on nothing is answered: one sentence. What the store holds is whole, what is not in it is still
    in the log, and a later seal completes the hour."""
    monkeypatch.setattr("shared.lake.remote.RETRIES", 1)
    proxy, uri = store
    here, there = (stand_for(tmp_path_factory.mktemp(name) / "lake", uri) for name in ("here", "there"))
    alone = tmp_path_factory.mktemp("alone") / "folder"
    record(here, "a", START_NS, START_NS + 5 * NS)
    record(alone, "a", START_NS, START_NS + 5 * NS)
    answer = proxy.answer

    def fail_later(client: http.server.BaseHTTPRequestHandler) -> None:
        proxy.share = float(sum(proxy.struck.values()) >= passes)
        answer(client)

    monkeypatch.setattr(proxy, "answer", fail_later)
    with pytest.raises(LakeError, match="must answer"):
        write.seal(here, r.SOURCE, r.HOUR)
    monkeypatch.setattr(proxy, "answer", answer)
    proxy.share = 0.0

    for table in layout.RAW:  # what another machine sees meanwhile is whole, or not there
        for hour in read.hours(there, table, r.SOURCE):
            path = read.sealed_file(there, table, r.SOURCE, hour)
            assert path is not None
            read.verify(path)
    assert write.unsealed(here, r.SOURCE) == [r.HOUR]
    assert write.seal(here, r.SOURCE, r.HOUR).rows > 0
    write.seal(alone, r.SOURCE, r.HOUR)
    for table in layout.RAW:
        rows = [read.collect(read.scan(root, table, r.SOURCE)) for root in (there, alone)]
        assert rows[0].equals(rows[1]), table
