"""A hub on this machine for the real clients: repositories as dictionaries, faults planted by path.

`huggingface_hub`, `transformers` and `datasets` find it by `HF_ENDPOINT`. Small files come from the
hub's own origin. Large ones are redirected to the storage, an origin of its own that must never be
told the token.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import http.server
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = (".safetensors", ".parquet")
"""Suffixes of the files that the storage keeps."""

API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)/?(.*))?"
)
RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """A repository of the hub.

    Attributes:
        commits: commit, 40 hexadecimal digits -> path -> content.
        names: branch or tag -> commit.
        gated: whether files are given to nobody (401 without a token, 403 with one).
        moved_to: its new name, `owner/name`, where it was renamed.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    moved_to: str = ""


@dataclass
class Fault:
    """What goes wrong with requests whose path matches.

    Attributes:
        path: a pattern of `fnmatch`, for the path of the URL; at the storage a file has the path
            `/datasets/owner/name/FILE` or `/models/owner/name/FILE`.
        origin: "hub" or "storage"; "": both.
        status: answer this instead.
        headers: with these headers.
        wait: seconds before anything is answered.
        sends: so many bytes of the content, then the connection is closed.
        grows: so many bytes more than there are is the length said to be; fewer, if negative.
        times: how often.
    """

    path: str
    origin: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    sends: int | None = None
    grows: int = 0
    times: float = float("inf")


@dataclass(frozen=True)
class Request:
    """What was asked, and what was answered."""

    origin: str
    method: str
    path: str
    token: str
    range: str
    status: int


def etag(path: str, content: bytes) -> str:
    """A file's digest as the hub has it: git's own, or SHA-256 for what the storage keeps."""
    if path.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class Hub:
    """The hub and its storage, each an origin of its own on the loopback.

    Attributes:
        repositories: "models/owner/name" or "datasets/owner/name" -> the repository.
        faults: the first one that matches and is not used up is met.
        asked: every request, in order.
        url: what `HF_ENDPOINT` must be.
    """

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.faults: list[Fault] = []
        self.asked: list[Request] = []
        self._lock = threading.Lock()
        self._servers = {origin: self._serve(origin) for origin in ("hub", "storage")}
        self.url, self.storage = (
            f"http://127.0.0.1:{server.server_port}" for server in self._servers.values()
        )

    def _serve(self, origin: str) -> http.server.ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "origin": origin})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def close(self) -> None:
        """Stops answering."""
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def environment(self, home: Any, *, token: str, patience: int = 10) -> dict[str, str]:
        """This process's variables, in which the clients find this hub, and their caches in a folder.

        Args:
            home: the folder.
            token: what the clients log in with.
            patience: seconds that they wait for an answer, before they ask again.
        """
        clients = ("HF_", "HUGGING", "TRANSFORMERS_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(clients)}
        return own | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": token,
            "HF_HUB_ETAG_TIMEOUT": str(patience),
            "HF_HUB_DOWNLOAD_TIMEOUT": str(patience),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def met(self, origin: str, path: str) -> Fault:
        """The fault that a request meets; one without effect where there is none."""
        with self._lock:
            for fault in self.faults:
                here = fault.origin in ("", origin) and fnmatch.fnmatch(path, fault.path)
                if here and fault.times:
                    fault.times -= 1
                    return fault
        return Fault(path)

    def note(self, request: Request) -> None:
        """Remembers a request."""
        with self._lock:
            self.asked.append(request)


@contextlib.contextmanager
def serving(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """A hub that has these repositories, until the end of the block."""
    hub = Hub(repositories)
    try:
        yield hub
    finally:
        hub.close()


@dataclass(frozen=True)
class Answer:
    """A status, headers and content."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""


def _json(value: Any) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())


def _refused(status: int, code: str, **headers: str) -> Answer:
    """The hub says why in a header; without it the clients see a bare number."""
    said = {"X-Error-Code": code, "X-Error-Message": code}
    return Answer(status, said | headers, json.dumps({"error": code}).encode())


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    origin: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and content are written apart

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.hub.met(self.origin, path)
        time.sleep(fault.wait)
        if fault.status:
            answer = Answer(fault.status, fault.headers, b"{}")
        elif self.origin == "storage":
            answer = self._stored(path, parse_qs(url.query)["commit"][0])
        else:
            answer = self._answer(url.path, parse_qs(url.query) | parse_qs(body.decode()))
        self._send(answer, fault)

    do_HEAD = do_POST = do_GET

    def _send(self, answer: Answer, fault: Fault) -> None:
        content, status, headers = answer.content, answer.status, dict(answer.headers)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and status == 200:
            first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(content)}"
            content = content[first : last + 1]
        length = len(content) + (fault.grows if content else 0)
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        token = self.headers.get("Authorization", "")
        ranged = self.headers.get("Range", "")
        self.hub.note(Request(self.origin, self.command, self.path, token, ranged, status))
        sent = content[: length if fault.sends is None else fault.sends]
        with contextlib.suppress(ConnectionError):  # whoever asked has hung up
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(sent)
                self.close_connection |= len(sent) < length

    def _answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        if found := RESOLVE.fullmatch(path):
            kind, name, revision, file = found.groups()
            return self._resolve(kind or "models", name, unquote(revision), unquote(file))
        if found := API.fullmatch(path):
            kind, name, what, revision, rest = found.groups()
            return self._api(
                kind, name, what, unquote(revision or "main"), unquote(rest or ""), query
            )
        return _refused(404, "NotFound")

    def _found(self, kind: str, name: str, revision: str) -> tuple[Repository, str] | Answer:
        """A repository, and the commit that is meant; or why there is none."""
        repository = self.hub.repositories.get(f"{kind}/{name}")
        if (
            repository is None
        ):  # the hub does not tell strangers what is private and what is not there
            return _refused(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
        if repository.moved_to:
            target = quote(unquote(self.path).replace(name, repository.moved_to, 1), safe="/?&=%")
            return Answer(307, {"Location": target})
        commit = repository.names.get(revision, revision)
        if commit not in repository.commits:
            return _refused(404, "RevisionNotFound")
        return repository, commit

    def _resolve(self, kind: str, name: str, revision: str, file: str) -> Answer:
        found = self._found(kind, name, revision)
        if isinstance(found, Answer):
            return found
        repository, commit = found
        if repository.gated:
            return _refused(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        content = repository.commits[commit].get(file)
        if content is None:
            return _refused(404, "EntryNotFound", **{"X-Repo-Commit": commit})
        tag, headers = f'"{etag(file, content)}"', {"X-Repo-Commit": commit}
        if not file.endswith(LARGE):
            return Answer(200, headers | {"ETag": tag}, content)
        headers |= {"X-Linked-Etag": tag, "X-Linked-Size": str(len(content))}
        place = f"{self.hub.storage}/{kind}/{name}/{quote(file)}?commit={commit}"
        return Answer(302, headers | {"Location": place})

    def _stored(self, path: str, commit: str) -> Answer:
        kind, owner, name, file = path.lstrip("/").split("/", 3)
        content = self.hub.repositories[f"{kind}/{owner}/{name}"].commits[commit][file]
        return Answer(200, {"ETag": f'"{etag(file, content)}"'}, content)

    def _api(
        self, kind: str, name: str, what: str, revision: str, rest: str, query: dict[str, list[str]]
    ) -> Answer:
        found = self._found(kind, name, revision)
        if isinstance(found, Answer):
            return found
        repository, commit = found
        files = repository.commits[commit]
        if what == "tree":
            return _json(list(_entries(files, rest, deep=query.get("recursive") == ["true"])))
        if what == "paths-info":
            every = {entry["path"]: entry for entry in _entries(files, "", deep=True)}
            return _json([every[path] for path in query.get("paths", []) if path in every])
        siblings = [{"rfilename": path} for path in files]
        return _json({"id": name, "sha": commit, "siblings": siblings, "private": False})

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


def _entries(files: dict[str, bytes], folder: str, *, deep: bool) -> Iterator[dict[str, Any]]:
    """Files and folders as the hub lists them."""
    start, folders = f"{folder}/" if folder else "", set[str]()
    for path, content in files.items():
        if path.startswith(start):
            parts = path.removeprefix(start).split("/")
            for depth in range(1, len(parts)):
                folders.add(start + "/".join(parts[:depth]))
            if deep or len(parts) == 1:
                entry = {"type": "file", "oid": etag(path, content), "size": len(content)}
                yield entry | {"path": path}
    for path in sorted(folders):
        if deep or "/" not in path.removeprefix(start):
            yield {
                "type": "directory",
                "oid": hashlib.sha1(path.encode()).hexdigest(),
                "size": 0,
            } | {"path": path}
