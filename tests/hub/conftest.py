"""A small Hub on loopback that speaks what huggingface_hub asks for, and programs run against it in new processes."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

PROGRAMS = Path(__file__).parent


class HubStore:
    """What the Hub holds, and what goes wrong on it."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.messages: dict[str, str] = {}
        self.private: set[str] = set()
        self.large_files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.switches: dict[str, Any] = {}
        """"lose_upload": the connection is lost while weights come in; "cut_download": a path that is sent half;
        "stall_download": a path of which the second half does not come."""

    def create(self, repo: str) -> bool:
        """Make an empty repository, or say that it exists."""
        if repo in self.branches:
            return False
        self.branches[repo] = {"main": self._store({}, repo)}
        return True

    def commit(self, repo: str, branch: str, files: dict[str, bytes], deleted: list[str], message: str) -> str:
        """Add a commit to a branch, all of it or nothing."""
        content = self.files(repo, branch) | files
        sha = self._store({path: data for path, data in content.items() if path not in deleted}, repo)
        self.messages[sha] = message
        self.branches[repo][branch] = sha
        return sha

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Give a revision's files."""
        return self.commits[self.resolve(repo, revision) or ""]

    def resolve(self, repo: str, revision: str) -> str | None:
        """Give the commit that a branch or a commit's own name means."""
        branches = self.branches.get(repo, {})
        return branches.get(revision, revision if revision in self.commits and branches else None)

    def _store(self, files: dict[str, bytes], repo: str) -> str:
        listing = [repo, *(f"{path} {git_name(data)}" for path, data in sorted(files.items()))]
        sha = hashlib.sha1("\n".join(listing).encode()).hexdigest()
        self.commits[sha] = files
        return sha


def git_name(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def listed(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": git_name(data)}
    if path.endswith(".safetensors"):
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 130}
    return entry


class HubHandler(BaseHTTPRequestHandler):
    """The requests of the Hub's API that pushing and loading make."""

    protocol_version = "HTTP/1.1"
    store: HubStore

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.store.requests.append((self.command, path))
        if path.startswith("/api/whoami"):
            return self.answer({"type": "user", "name": "me", "auth": {"accessToken": {"role": "write"}}})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            return self.with_commit(*found.groups(), self.send_tree)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.with_commit(found[1], found[2] or "main", self.send_info)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.with_commit(found[1], found[2], lambda repo, sha: self.send_file(sha, found[3]))
        return self.refuse("EntryNotFound")

    def do_POST(self) -> None:
        path, body = unquote(urlparse(self.path).path), self.body()
        self.store.requests.append(("POST", path))
        if path == "/test/switches":
            self.store.switches = json.loads(body)
            return self.answer({})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if asked.get("private") or asked.get("visibility") == "private":
                self.store.private.add(repo)
            return self.answer({"url": self.url(repo), "name": repo}, 200 if self.store.create(repo) else 409)
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/.+", path):
            return self.answer({"files": [self.upload_mode(file["path"]) for file in json.loads(body)["files"]]})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.answer(
                {"transfer": "basic", "objects": list(map(self.lfs_action, json.loads(body)["objects"]))}
            )
        if path == "/lfs-verify":
            return self.answer({})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            return self.take_commit(found[1], found[2], body)
        return self.refuse("EntryNotFound")

    def do_PUT(self) -> None:
        if self.store.switches.get("lose_upload"):
            self.rfile.read(1)
            return self.lose_connection()
        data = self.body()
        digest = self.path.rpartition("/")[2]
        if hashlib.sha256(data).hexdigest() != digest:
            return self.answer({"error": "another digest"}, 400)
        self.store.large_files[digest] = data
        return self.answer({})

    def with_commit(self, repo: str, revision: str, send: Callable[[str, str], None]) -> None:
        sha = self.store.resolve(repo, revision)
        if repo not in self.store.branches:
            return self.refuse("RepoNotFound")
        return self.refuse("RevisionNotFound") if sha is None else send(repo, sha)

    def send_tree(self, repo: str, sha: str) -> None:
        self.answer([listed(path, data) for path, data in sorted(self.store.commits[sha].items())])

    def send_info(self, repo: str, sha: str) -> None:
        names = [{"rfilename": path} for path in sorted(self.store.commits[sha])]
        facts = {"id": repo, "modelId": repo, "sha": sha, "private": False, "tags": [], "downloads": 0, "likes": 0}
        self.answer(facts | {"siblings": names})

    def send_file(self, sha: str, path: str) -> None:
        data = self.store.commits[sha].get(path)
        if data is None:
            return self.refuse("EntryNotFound", {"X-Repo-Commit": sha})
        entry = listed(path, data)
        name = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, "0"])[1])
        self.send_response(206 if start else 200)
        for key, value in {
            "Content-Type": "application/octet-stream",
            "Content-Length": len(data) - start,
            "ETag": f'"{name}"',
            "X-Repo-Commit": sha,
            "Accept-Ranges": "bytes",
        }.items():
            self.send_header(key, str(value))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.store.switches.get("cut_download") == path:
            # Half of it, and nothing more for whoever asks again.
            self.wfile.write(data[start : len(data) // 2])
            return self.lose_connection()
        if self.store.switches.get("stall_download") == path:
            self.wfile.write(data[start : len(data) // 2])
            self.wfile.flush()
            while self.store.switches.get("stall_download") == path:
                time.sleep(0.05)
            return self.lose_connection()
        self.wfile.write(data[start:])
        return None

    def take_commit(self, repo: str, branch: str, body: bytes) -> None:
        files: dict[str, bytes] = {}
        deleted: list[str] = []
        message = ""
        for line in filter(None, body.splitlines()):
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.store.large_files[value["oid"]]
            elif entry["key"] == "deletedFile":
                deleted.append(value["path"])
        asks = "create_pr=1" in urlparse(self.path).query
        if asks:
            self.store.branches[repo]["refs/pr/1"] = self.store.branches[repo][branch]
        sha = self.store.commit(repo, "refs/pr/1" if asks else branch, files, deleted, message)
        request = {"pullRequestUrl": f"{self.url(repo)}/discussions/1"} if asks else {}
        self.answer({"success": True, "commitOid": sha, "commitUrl": f"{self.url(repo)}/commit/{sha}"} | request)

    def upload_mode(self, path: str) -> dict[str, Any]:
        mode = "lfs" if path.endswith((".safetensors", ".png")) else "regular"
        return {"path": path, "uploadMode": mode, "shouldIgnore": False}

    def lfs_action(self, asked: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": self.url(f"lfs/{asked['oid']}")}
        return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": upload}}

    def url(self, path: str) -> str:
        return f"http://{self.headers['Host']}/{path}"

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def answer(self, content: Any, code: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, code: str, headers: dict[str, str] | None = None) -> None:
        self.answer({"error": code}, 404, {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def lose_connection(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)


class Hub:
    """The running server: its store, its address, and how programs are run against it."""

    def __init__(self, store: HubStore, url: str, folder: Path) -> None:
        self.store = store
        self.url = url
        self._folder = folder

    def run(self, program: str, *arguments: str | Path, python: tuple[str, ...] = (), **environment: str) -> None:
        """Run a program of this folder to its end in a new process that knows no other Hub."""
        result = subprocess.run(
            [sys.executable, *python, PROGRAMS / program, *arguments],
            env=self.environment(**environment), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr

    def environment(self, **others: str) -> dict[str, str]:
        home = self._folder / "home"
        ours = {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "t", "HF_HOME": str(home)}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        return kept | ours | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")} | others


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Give an empty Hub on loopback."""
    store = HubStore()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"store": store}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Hub(store, f"http://127.0.0.1:{server.server_port}", tmp_path_factory.mktemp("hub"))
    server.shutdown()
    server.server_close()
