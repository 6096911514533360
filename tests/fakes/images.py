"""Images for tests, made of this machine's own programs; no registry is asked.

A root file system (busybox, this Python, packages of this environment) is packed once into `~/.cache/stackyard/images`
and imported into each daemon; small layers with handlers are built on top. Containers find nothing else in them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import docker
from docker.errors import ImageNotFound
from packaging.requirements import Requirement

from tests.fakes.dockerd import DockerDaemon, find_program, install
from tests.fakes.machine_lock import machine_lock

_RECIPE = "5"  # to be raised when what is packed changes
_SITE = "/opt/site-packages"
_STDLIB_LEFT_OUT = {"test", "idlelib", "lib2to3", "tkinter", "ensurepip", "turtledemo", "site-packages", "__pycache__"}

ECHO_HANDLER = """\
import runpod

def handler(event):
    return {"echo": event.get("input", {})}

runpod.serverless.start({"handler": handler})
"""
"""The document's own."""

HTTP_HANDLER = """\
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(200, {"status": "ok"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != "/run":
            return self.answer(404, {"error": f"no {self.path} here"})
        given = json.loads(body).get("input", {})
        asked = given if isinstance(given, dict) else {}
        time.sleep(float(asked.get("sleep", 0)))
        if asked.get("crash"):
            print("crashing as asked", file=sys.stderr, flush=True)
            os._exit(3)
        if "fail" in asked:
            return self.answer(500, {"error": asked["fail"]})
        if asked.get("malformed"):
            return self.send(200, b'{"output": ')
        if "size" in asked:
            return self.answer(200, {"output": "x" * int(asked["size"])})
        if "env" in asked:
            return self.answer(200, {"output": os.environ.get(asked["env"])})
        self.answer(200, {"output": {"echo": given, "worker": os.environ.get("HOSTNAME", "")}})

    def answer(self, status, value):
        self.send(status, json.dumps(value).encode())

    def send(self, status, body):
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

print("listening", flush=True)
Server(("", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
"""
"""`POST /run`: echoes its input; `sleep`, `fail`, `crash`, `malformed`, `size`, `env` in it make it do otherwise."""

_START_SSH = """\
#!/bin/sh
mkdir -p /root/.ssh /etc/dropbear
echo "$PUBLIC_KEY" > /root/.ssh/authorized_keys
chmod 700 /root /root/.ssh
chmod 600 /root/.ssh/authorized_keys
exec /usr/sbin/dropbear -F -E -R -s -p 22
"""


def busybox_image(daemon: DockerDaemon) -> str:
    """A shell and the usual small programs; ends at once if not told what to run."""
    return _import(daemon, "busybox", {}, [], ['CMD ["sh"]'])


def python_image(daemon: DockerDaemon, packages: Sequence[str] = ()) -> str:
    """This machine's Python on PATH as `python`, with packages of this environment and all they require."""
    name = "-".join(["python", *packages])
    versions = {p: importlib.metadata.version(p) for p in _closure(packages)}
    changes = [f"ENV PYTHONPATH={_SITE}", "ENV PYTHONDONTWRITEBYTECODE=1", 'CMD ["python"]']
    return _import(daemon, name, versions, packages, changes, python=True)


def handler_image(daemon: DockerDaemon, handler: str = HTTP_HANDLER) -> str:
    """An HTTP handler on port 8000 (or `$PORT`): `POST /run`, any GET is its health."""
    return _layer(daemon, "handler", python_image(daemon), {"/handler.py": handler}, _RUN_HANDLER)


def runpod_image(daemon: DockerDaemon, handler: str = ECHO_HANDLER) -> str:
    """A handler on the real `runpod` package, built as the document's Dockerfile does."""
    base = python_image(daemon, ["runpod"])
    return _layer(daemon, "runpod-handler", base, {"/handler.py": handler}, _RUN_HANDLER)


def ssh_image(daemon: DockerDaemon) -> str:
    """An SSH server on port 22 that lets root in by the key in `$PUBLIC_KEY`; has a shell, no Python."""
    install(("dropbear",), ("dropbear-bin",))
    dropbear = find_program("dropbear")
    assert dropbear is not None
    base = _import(daemon, "ssh", {}, [], ['CMD ["/start.sh"]', "EXPOSE 22"], programs={"/usr/sbin/dropbear": dropbear})
    return _layer(daemon, "ssh", base, {"/start.sh": _START_SSH}, 'CMD ["/start.sh"]')


_RUN_HANDLER = 'EXPOSE 8000\nCMD ["python", "-u", "/handler.py"]'


def _layer(daemon: DockerDaemon, name: str, base: str, files: Mapping[str, str], rest: str) -> str:
    """Build an image of `base` and small files; returns its tag."""
    copies = "\n".join(f"COPY {path.strip('/')} {path}" for path in files)
    dockerfile = f"FROM {base}\n{copies}\n{rest}\n"
    digest = hashlib.sha256(repr([dockerfile, dict(files)]).encode()).hexdigest()[:12]
    tag = f"stackyard/{name}:{digest}"
    client = daemon.client()
    if not _has(client, tag):
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for path, text in {**files, "Dockerfile": dockerfile}.items():
                _add_text(archive, path.strip("/"), text)
        client.images.build(fileobj=io.BytesIO(context.getvalue()), custom_context=True, tag=tag, rm=True)
    return tag


def _import(
    daemon: DockerDaemon,
    name: str,
    versions: Mapping[str, str],
    packages: Sequence[str],
    changes: Sequence[str],
    *,
    python: bool = False,
    programs: Mapping[str, str] | None = None,
) -> str:
    """Import a root file system, packed before or now; returns its tag."""
    install(("busybox",), ("busybox-static",))
    what = [_RECIPE, sys.version, sys.base_prefix, sorted(versions.items()), sorted((programs or {}).items())]
    digest = hashlib.sha256(repr(what).encode()).hexdigest()[:12]
    tag = f"stackyard/{name}:{digest}"
    client = daemon.client()
    if _has(client, tag):
        return tag
    archive = _cache() / f"{name}-{digest}.tar"
    with machine_lock("images"):
        if not archive.exists():
            _pack(archive, name, packages, python, programs or {})
    client.api.import_image(src=str(archive), repository=tag.partition(":")[0], tag=digest, changes=list(changes))
    return tag


def _has(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stackyard" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _pack(archive: Path, name: str, packages: Sequence[str], python: bool, programs: Mapping[str, str]) -> None:
    """Make a root file system and pack it, under its name only when it is whole."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        root = Path(scratch) / "root"
        _basics(root)
        copied = [*_python(root)] if python else []
        copied += _packages(root, packages)
        for place, program in programs.items():
            copied.append(_copy(Path(program).resolve(), root, place))
        for library in _libraries(copied, root):
            _copy(library.resolve(), root, str(library))
        draft = Path(scratch) / "draft.tar"
        subprocess.run(
            ["tar", "--sort=name", "--owner=0", "--group=0", "-C", str(root), "-cf", str(draft), "."], check=True
        )
        for old in archive.parent.glob(f"{name}-{'?' * 12}.tar"):
            old.unlink(missing_ok=True)
        os.replace(draft, archive)


def _basics(root: Path) -> None:
    for folder in (
        "bin",
        "etc",
        "root",
        "proc",
        "sys",
        "dev",
        "run",
        "usr/sbin",
        "usr/local/bin",
        "var/run",
        "workspace",
    ):
        (root / folder).mkdir(parents=True)
    (root / "tmp").mkdir(mode=0o777)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "etc/shells").write_text("/bin/sh\n")
    program = find_program("busybox")
    assert program is not None
    shutil.copy2(program, root / "bin/busybox")
    names = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")


def _python(root: Path) -> Iterable[Path]:
    """Copy this Python to where it is on this machine; returns what may need shared libraries."""
    program = Path(sys.executable).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    there = root / str(stdlib).strip("/")
    unwanted = shutil.ignore_patterns(*_STDLIB_LEFT_OUT, "config-*", "*.a", "_test*", "*_failures*")
    shutil.copytree(stdlib, there, ignore=unwanted)
    _compile(there, str(stdlib))
    yield _copy(program, root, str(program))
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to(program)
    yield from there.rglob("*.so")


def _packages(root: Path, packages: Sequence[str]) -> list[Path]:
    there = root / _SITE.strip("/")
    there.mkdir(parents=True)
    for package in _closure(packages):
        distribution = importlib.metadata.distribution(package)
        for file in distribution.files or ():
            source, target = Path(str(distribution.locate_file(file))), there / file
            if ".." in file.parts or "__pycache__" in file.parts or not source.is_file():
                continue  # scripts in bin, stale byte code
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    _compile(there, _SITE)
    return list(there.rglob("*.so"))


def _compile(folder: Path, called: str) -> None:
    """Byte code in advance: a container starts from nothing each time."""
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "-f", "-j", "2", "--invalidation-mode", "unchecked-hash",
         "-s", str(folder), "-p", called, str(folder)],
        check=False, capture_output=True,
    )  # fmt: skip


def _closure(packages: Sequence[str]) -> list[str]:
    """Packages and all they require here, by canonical name."""
    found: dict[str, None] = {}
    waiting = list(packages)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found[name] = None
        for line in importlib.metadata.distribution(name).requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return sorted(found)


def _libraries(programs: Sequence[Path], root: Path) -> list[Path]:
    """The machine's shared libraries that programs in `root` need, besides those that packages brought along."""
    found: dict[Path, None] = {}
    for start in range(0, len(programs), 50):
        batch = [str(p) for p in programs[start : start + 50]]
        told = subprocess.run(["ldd", *batch], capture_output=True, text=True, check=False).stdout
        for path in re.findall(r"^\t(?:\S+ => )?(/\S+) \(0x", told, re.MULTILINE):
            if not Path(path).is_relative_to(root):
                found[Path(path)] = None
    return list(found)


def _copy(source: Path, root: Path, place: str) -> Path:
    target = root / place.strip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    return target


def _add_text(archive: tarfile.TarFile, path: str, text: str) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(text.encode()), 0o755
    archive.addfile(member, io.BytesIO(text.encode()))
