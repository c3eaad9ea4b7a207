"""The site over HTTP, and news of it as server-sent events.

The standard library's server does: pages are read by one person on the machine that they are served
from. An open page holds one connection to `/events`, over which come what is running, every second,
and the word that some run's state changed, upon which the page fetches itself again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from experiments.dashboard.site import HTML, Page, Site
from experiments.errors import UserError

log = logging.getLogger(__name__)

PLAIN = "text/plain; charset=utf-8"
LOOK_EVERY_S = 1.0
SILENCE_S = 15.0  # after which a comment finds out whether anyone still listens
LOCAL = ("localhost", "127.0.0.1")
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'"


class Server(ThreadingHTTPServer):
    """Serves one site to `host` until it is shut down; port 0 takes any that is free."""

    daemon_threads = True

    def __init__(self, site: Site, host: str, port: int) -> None:
        self.site, self.host = site, host
        self.closing = threading.Event()
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            raise UserError(
                f"--port {port}: cannot listen on {host}: {error.strerror or error}; "
                "give another port, or 0 for any"
            ) from None

    @property
    def url(self) -> str:
        """Where the overview is."""
        return f"http://{self.host}:{self.server_address[1]}/"

    def shutdown(self) -> None:
        """End the open event streams, too."""
        self.closing.set()
        super().shutdown()

    def events(self) -> Iterator[str]:
        """News as they come, in the format of server-sent events; first what is running now."""
        running, version = self.site.news()
        yield _event("running", running)
        silent = 0.0
        while not self.closing.wait(LOOK_EVERY_S):
            news, before = [], (running, version)
            running, version = self.site.news()
            if running != before[0]:
                news.append(_event("running", running))
            if version != before[1]:
                news.append(_event("changed", None))
            silent = 0.0 if news else silent + LOOK_EVERY_S
            if silent >= SILENCE_S:
                silent = 0.0
                news.append(": still here\n\n")
            yield from news


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the site's paths."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "spinenet", ""

    def do_GET(self) -> None:
        self._answer(self._stream_events, lambda page: self.wfile.write(page.body))

    def do_HEAD(self) -> None:
        self._answer(lambda: None, lambda page: None)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not worth a line each."""

    def _answer(self, stream: Callable[[], None], body: Callable[[Page], Any]) -> None:
        try:
            if not self._is_for_us():
                page = Page(b"this dashboard answers to its own address only\n", PLAIN)
                self._head(HTTPStatus.FORBIDDEN, page)
                body(page)
                return
            path = unquote(urlsplit(self.path).path).lstrip("/")
            if path == "events":
                stream()
                return
            status, page = self._page(path or "index.html")
            self._head(status, page)
            body(page)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the reader has gone

    def _page(self, path: str) -> tuple[HTTPStatus, Page]:
        """What is at a path, or why nothing is; one page that fails leaves the others."""
        try:
            found = self.server.site.page(path)
            if found is None:
                return HTTPStatus.NOT_FOUND, self.server.site.missing(path)
            return HTTPStatus.OK, found
        except Exception as error:
            log.exception("%s cannot be made", path)
            told = f"this page cannot be made: {type(error).__name__}: {error}\n"
            return HTTPStatus.INTERNAL_SERVER_ERROR, Page(told.encode(), PLAIN)

    def _is_for_us(self) -> bool:
        """Whether the request names this server: another site's page, whose name was made to point
        here, does not.
        """
        if self.server.host not in LOCAL:
            return True  # opened to others on purpose, under whatever name
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return name in LOCAL

    def _head(self, status: HTTPStatus, page: Page) -> None:
        self.send_response(status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if page.content_type == HTML:
            self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()

    def _stream_events(self) -> None:
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in self.server.events():
            self.wfile.write(event.encode())
            self.wfile.flush()


def _event(kind: str, data: str | None) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
