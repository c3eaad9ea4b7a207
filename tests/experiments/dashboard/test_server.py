"""The server: the site's pages and nothing else, to this machine, with news as they come."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from experiments.dashboard.server import Server
from experiments.dashboard.site import Site
from experiments.errors import UserError
from experiments.leases import lock


@contextmanager
def serving(roots: list[Path], searches: Sequence[Path] = ()) -> Iterator[Server]:
    """A server of a live site on a free port."""
    site = Site(roots, searches=searches, is_live=True)
    with Server(site, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "runs").mkdir()
    (tmp_path / "secret.txt").write_text("nothing to see")
    with serving([tmp_path / "runs"]) as found:
        yield found


def ask(server: Server, target: str, method: str = "GET", host: str = "") -> tuple[int, bytes]:
    """Status and body of a request whose target is sent as it is."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)
    connection.putrequest(method, target, skip_host=bool(host))
    if host:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_it_listens_to_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url.startswith("http://127.0.0.1:")


def test_the_root_is_the_overview_and_what_is_not_there_says_so(server):
    status, body = ask(server, "/")
    assert (status, b"<h1>Overview</h1>" in body) == (200, True)
    status, body = ask(server, "/nothing<script>.html")
    assert status == 404
    assert b"nothing&lt;script&gt;.html" in body


@pytest.mark.parametrize(
    "target",
    [
        "/../secret.txt",
        "/../../../../../../etc/passwd",
        "//etc/passwd",
        "/static/../../../pyproject.toml",
        "/static/..%2f..%2f..%2fpyproject.toml",
        "/run/%2e%2e/%2e%2e/secret.txt",
        "/run/..%5c..%5csecret.txt",
        "/static/dashboard.css%00.html",
        "/static/../site.py",
    ],
)
def test_nothing_outside_the_site_is_served(server, target):
    status, body = ask(server, target)
    assert status == 404
    assert b"nothing to see" not in body
    assert b"root:" not in body
    assert b"[project]" not in body


def test_nothing_can_be_written_or_asked_for_under_another_name(server):
    assert ask(server, "/index.html", "POST")[0] == 501
    assert ask(server, "/index.html", "DELETE")[0] == 501
    status, body = ask(server, "/index.html", host="evil.example")
    assert (status, b"Overview" in body) == (403, False)
    assert ask(server, "/index.html", host="localhost:1")[0] == 200


def test_head_has_the_length_and_no_body(server):
    status, body = ask(server, "/static/dashboard.css", "HEAD")
    assert (status, body) == (200, b"")


def test_pages_allow_no_script_but_their_own(server):
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=20)
    connection.request("GET", "/")
    policy = connection.getresponse().getheader("Content-Security-Policy")
    connection.close()
    assert policy is not None
    assert policy.startswith("default-src 'self'")
    assert "unsafe" not in policy


def test_a_port_that_is_taken_is_one_clear_error(server):
    port = server.server_address[1]
    with pytest.raises(UserError, match=f"--port {port}: cannot listen on 127.0.0.1"):
        Server(server.site, "127.0.0.1", port)


def test_events_tell_what_runs_and_that_a_run_changed(tmp_path, write):
    folder = write("4" * 12)
    (folder / "result.json").rename(tmp_path / "kept.json")
    with serving([tmp_path]) as server, socket.create_connection(server.server_address[:2]) as line:
        line.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        line.settimeout(20)
        events = line.makefile("r")
        assert "200" in next(events)
        assert json.loads(until(events, "running")).strip() == ""
        with lock(folder):
            now = {"step": 5, "total": 10, "batch_size": 8, "begun": 0, "begun_at_step": 0}
            (folder / "progress.json").write_text(json.dumps({**now, "updated": 1}))
            news = json.loads(until(events, "running"))
            assert "5 of 10" in news
            until(events, "changed")  # a run began
        until(events, "changed")  # it stopped
        (tmp_path / "kept.json").rename(folder / "result.json")
        until(events, "changed")  # it is complete


def until(events: Iterator[str], kind: str) -> str:
    """The data of the next event of this kind."""
    deadline = time.monotonic() + 30
    for line in events:
        if line == f"event: {kind}\n":
            return next(events).removeprefix("data: ")
        assert time.monotonic() < deadline, f"no {kind} came"
    raise AssertionError(f"the stream ended before {kind}")
