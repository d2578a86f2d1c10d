"""Real Allsource Cores: built once into a cache folder, started and stopped by the tests.

``python -m tests.support.cores build`` builds what is missing (about ten minutes for each version on two processors),
``python -m tests.support.cores list`` says what is there. The folder is ``$ALLSOURCE_AUTH_CORES``, else
``allsource-auth/cores`` in the user's cache folder; a Core lies in it as ``<version>/bin/allsource-core``.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import httpx

__all__ = ["NEWEST", "OLDEST", "Core", "CoreFailed", "CoreMissing", "build", "find", "folder", "required", "running"]

OLDEST = "0.23.0"
NEWEST = "0.27.0"

PROGRAM = "allsource-core"
RUST = (1, 92)
"""What both versions need (section 1.1 of the contract)."""

PORTS = range(20_000, 30_000)
"""Below what systems give to outgoing connections, so that a port is still free when its Core starts again."""

UP_SECONDS = 30.0
DOWN_SECONDS = 30.0
LOOK_SECONDS = 0.02
TAIL = 4000


class CoreMissing(Exception):
    """A Core is not built, or cannot be built here; the text says what to do."""


class CoreFailed(Exception):
    """A Core did not start, or did not end. The text ends with what it said last, without its API key."""


def folder() -> Path:
    """Where the Cores are kept: outside of the checkout, so that it is built once for all of them."""
    if chosen := os.environ.get("ALLSOURCE_AUTH_CORES"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "allsource-auth" / "cores"


def find(version: str) -> Path | None:
    """The program of a version; ``None`` if it is not built."""
    program = _program(folder() / version)
    return program if os.access(program, os.X_OK) else None


def required(version: str) -> Path:
    """The program of a version. ``CoreMissing`` says how to build it."""
    if found := find(version):
        return found
    raise CoreMissing(
        f"Allsource Core {version} is not built: run `python -m tests.support.cores build {version}` "
        "(about ten minutes, once; it needs Rust 1.92 or newer, from rustup)"
    )


def _program(root: Path) -> Path:
    return root / "bin" / PROGRAM


class Core:
    """A Core on a port of its own, on loopback, in dev mode; ``running`` makes it.

    ``url`` and ``api_key`` stay the same through every restart; ``version`` is that of the last start. The key belongs to
    tenant ``system``, whose administrator reads the event feed of every tenant (sections 5 and 8 of the contract of 0.27).
    """

    def __init__(self, version: str, data: Path | None, env: Mapping[str, str], output: Path) -> None:
        self.version = version
        self.api_key = f"ask_{secrets.token_urlsafe(24)}"
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._data = data
        self._env = env
        self._output = output
        self._child: asyncio.subprocess.Process | None = None

    def __repr__(self) -> str:
        return f"Core({self.version!r}, {self.url!r})"

    @property
    def pid(self) -> int:
        return self._running().pid

    async def start(self, version: str | None = None) -> None:
        """Start a Core that was stopped: on its port and data directory, optionally in another version.

        Returns when it answers. Raises ``CoreFailed`` if it ends instead, or does not answer for 30 seconds.
        """
        assert self._child is None, "this Core is running"
        version = version or self.version
        program = required(version)
        self.version = version
        headers = {"X-API-Key": self.api_key}
        try:
            async with (
                asyncio.timeout(UP_SECONDS),
                httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, verify=False) as client,
            ):
                while not await self._answers(client, program):
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            await self.kill()
            raise self._failed("did not answer") from None
        except BaseException:
            await self.kill()
            raise

    async def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Send the signal and wait for the end; of a Core that is stopped already, nothing.

        Raises ``CoreFailed``, with the Core killed, if it does not end within 30 seconds.
        """
        child = self._child
        if child is None:
            return
        if child.returncode is None:
            child.send_signal(sig)
        try:
            async with asyncio.timeout(DOWN_SECONDS):
                await child.wait()
        except TimeoutError:
            raise self._failed(f"did not end after {sig.name}") from None
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End the Core without warning, and wait for its end even while this task is being cancelled."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        with anyio.CancelScope(shield=True):
            await child.wait()

    async def restart(self, sig: signal.Signals = signal.SIGTERM, *, version: str | None = None) -> None:
        """``stop`` with a signal, then ``start``."""
        await self.stop(sig)
        await self.start(version)

    def output(self) -> str:
        """The end of what this Core has said since its last start, without its API key."""
        said = self._output.read_bytes()[-TAIL:].decode(errors="replace")
        return said.replace(self.api_key, "(its API key)")

    def _running(self) -> asyncio.subprocess.Process:
        assert self._child is not None, "this Core is stopped"
        return self._child

    async def _answers(self, client: httpx.AsyncClient, program: Path) -> bool:
        """Whether this Core is up; starts it if there is none, and once more if somebody still had its port.

        Another Core on the port does not know the key, and takes its bearer for ``dev-user`` (section 3.3 of the contract).
        """
        if self._child is None or self._child.returncode is not None:
            if self._child is not None and "Address already in use" not in self.output():
                raise self._failed(f"ended with {self._child.returncode}")
            await self._launch(program)
        try:
            health, me = await client.get("/health"), await client.get("/api/v1/auth/me")
        except httpx.HTTPError:
            return False
        if not (health.is_success and me.is_success and me.json()["username"] != "dev-user"):
            return False
        if self._data is not None and health.json()["system_streams"]["mode"] == "in-memory":
            # A Core that cannot use its data directory starts all the same and says that it is healthy.
            raise self._failed("keeps its events in memory")
        return True

    async def _launch(self, program: Path) -> None:
        with self._output.open("wb") as output:
            self._child = await asyncio.create_subprocess_exec(
                program,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._output.parent,
                env=self._environment(),
            )

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ALLSOURCE_")}
        ours = {
            "ALLSOURCE_HOST": "127.0.0.1",
            "ALLSOURCE_PORT": str(self._port),
            "ALLSOURCE_DEV_MODE": "true",
            "ALLSOURCE_BOOTSTRAP_API_KEY": self.api_key,
            "ALLSOURCE_BOOTSTRAP_TENANT_ID": "system",
            "RUST_LOG": "error",
        }
        if self._data is not None:
            ours["ALLSOURCE_DATA_DIR"] = str(self._data.absolute())
        return {**inherited, **ours, **self._env}

    def _failed(self, what: str) -> CoreFailed:
        return CoreFailed(f"Allsource Core {self.version} {what}; it said last:\n{self.output()}")


def _free_port() -> int:
    while True:
        # Not drawn by `random`: Hypothesis seeds that, and every worker would draw the same ports.
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@asynccontextmanager
async def running(version: str, *, data: Path | None = None, env: Mapping[str, str] = {}) -> AsyncIterator[Core]:
    """A Core that answers, ended at the end whatever happens.

    ``data`` is its data directory; without one it keeps everything in memory, and forgets it at a restart. ``env`` adds to
    its environment. Raises ``CoreMissing`` if the version is not built, ``CoreFailed`` if it does not start.
    """
    required(version)
    with tempfile.TemporaryDirectory(prefix="allsource-core-") as directory:
        core = Core(version, data, env, Path(directory) / "output")
        try:
            await core.start()
            yield core
        finally:
            await core.kill()


def build(versions: Sequence[str]) -> None:
    """Build those of the versions that are missing. Raises ``CoreMissing`` if this machine lacks something for it.

    A Core is built in a folder of its own that is renamed at the end: an interrupted build never looks finished.
    """
    cores = folder()
    if not [version for version in versions if find(version) is None]:
        _say("Everything is built.")
        return
    cargo = _cargo()
    cores.mkdir(parents=True, exist_ok=True)
    with _alone(cores):
        compiled = cores / ".target"
        for version in versions:
            if find(version) is None:
                _build(cargo, cores, version, compiled)
        shutil.rmtree(compiled, ignore_errors=True)


def _build(cargo: str, cores: Path, version: str, compiled: Path) -> None:
    root = cores / f".building-{version}"
    shutil.rmtree(root, ignore_errors=True)
    _say(f"Building Allsource Core {version}; this takes about ten minutes.")
    command = [cargo, "install", PROGRAM, "--version", version, "--bin", PROGRAM, "--locked", "--root", str(root)]
    done = subprocess.run(command, env={**os.environ, "CARGO_TARGET_DIR": str(compiled)}, check=False)
    if done.returncode != 0 or not os.access(_program(root), os.X_OK):
        raise CoreMissing(f"Allsource Core {version} could not be built: cargo ended with {done.returncode}")
    shutil.rmtree(cores / version, ignore_errors=True)
    root.rename(cores / version)
    _say(f"Built {_program(cores / version)}")


def _cargo() -> str:
    needed = "building Allsource Core needs Rust 1.92 or newer, from rustup (https://rustup.rs)"
    cargo, rustc = shutil.which("cargo"), shutil.which("rustc")
    if cargo is None or rustc is None:
        raise CoreMissing(f"{'rustc' if cargo else 'cargo'} is not on the path: {needed}")
    said = subprocess.run([rustc, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.match(r"rustc (\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < RUST:
        raise CoreMissing(f"{said or rustc} is too old: {needed}")
    return cargo


@contextmanager
def _alone(cores: Path) -> Iterator[None]:
    """One builder at a time, over all processes."""
    with (cores / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("Waiting for another build.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.cores", description="The Cores that the tests run.")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build the versions that are missing")
    building.add_argument("version", nargs="*", help=f"default: {OLDEST} and {NEWEST}")
    commands.add_parser("list", help="say which versions are there")
    given = parser.parse_args(arguments)
    if given.command == "list":
        for version in (OLDEST, NEWEST):
            _say(f"{version}  {find(version) or 'not built'}")
        return 0
    try:
        build(given.version or (OLDEST, NEWEST))
    except CoreMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
