"""Real Allsource Cores: built once into a cache folder, started and stopped by tests.

``python -m tests.support.cores build`` builds the missing versions, each in about ten minutes on two processors.
``python -m tests.support.cores list`` lists the versions. The folder is ``$ALLSOURCE_AUTH_CORES``, or
``allsource-auth/cores`` in the user's cache folder. The path of a Core in it is ``<version>/bin/allsource-core``.
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
"""The lowest version of Rust that builds both versions."""

PORTS = range(20_000, 30_000)
"""Below the ephemeral ports of the usual systems, so that the port is still free when its Core is restarted."""

UP_SECONDS = 30.0
DOWN_SECONDS = 30.0
LOOK_SECONDS = 0.02
TAIL = 4000


class CoreMissing(Exception):
    """A Core is not built, or cannot be built here. The message says what to do."""


class CoreFailed(Exception):
    """A Core did not start or stop. The message ends with its last output, without its API key."""


def folder() -> Path:
    """The folder of the Cores. It is outside of the checkout, so that several checkouts share it."""
    if chosen := os.environ.get("ALLSOURCE_AUTH_CORES"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "allsource-auth" / "cores"


def find(version: str) -> Path | None:
    """The executable of a version; ``None`` if it is not built."""
    program = _program(folder() / version)
    return program if os.access(program, os.X_OK) else None


def required(version: str) -> Path:
    """The executable of a version. Raises `CoreMissing`, which says how to build it."""
    if found := find(version):
        return found
    raise CoreMissing(
        f"Allsource Core {version} is not built: run `python -m tests.support.cores build {version}` "
        "(about ten minutes, once; it needs Rust 1.92 or newer, from rustup)"
    )


def _program(root: Path) -> Path:
    return root / "bin" / PROGRAM


class Core:
    """A Core on its own port of the loopback interface, in development mode. Created by `running`.

    ``url`` and ``api_key`` stay the same after a restart; ``version`` is that of the last start. The key belongs to tenant
    ``system``, whose administrator may read the event feed of every tenant.
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
        """Start a stopped Core on its port and data directory, optionally in another version.

        Returns when it answers. Raises `CoreFailed` if it exits, or does not answer within 30 seconds.
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
        """Send the signal and wait for the exit. Does nothing if the Core is stopped.

        Kills the Core and raises `CoreFailed` if it does not exit within 30 seconds.
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
            raise self._failed(f"did not exit after {sig.name}") from None
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Kill the Core and wait for its exit, also if this task is cancelled meanwhile."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            child.kill()
        with anyio.CancelScope(shield=True):
            await child.wait()

    async def restart(self, sig: signal.Signals = signal.SIGTERM, *, version: str | None = None) -> None:
        """`stop` with a signal, then `start`."""
        await self.stop(sig)
        await self.start(version)

    def output(self) -> str:
        """The end of the output since the last start, without the API key."""
        text = self._output.read_bytes()[-TAIL:].decode(errors="replace")
        return text.replace(self.api_key, "(its API key)")

    def _running(self) -> asyncio.subprocess.Process:
        assert self._child is not None, "this Core is stopped"
        return self._child

    async def _answers(self, client: httpx.AsyncClient, program: Path) -> bool:
        """Whether this Core answers. Starts it if it is not running, and again if its port was still in use.

        Another Core on the port does not know the key and reports ``dev-user`` for it.
        """
        if self._child is None or self._child.returncode is not None:
            if self._child is not None and "Address already in use" not in self.output():
                raise self._failed(f"exited with {self._child.returncode}")
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
        return CoreFailed(f"Allsource Core {self.version} {what}; its last output:\n{self.output()}")


def _free_port() -> int:
    while True:
        # Not from `random`: Hypothesis seeds it, so that every worker would draw the same ports.
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@asynccontextmanager
async def running(version: str, *, data: Path | None = None, env: Mapping[str, str] = {}) -> AsyncIterator[Core]:
    """Run a Core. It is killed when the block exits.

    ``data`` is its data directory; without one it keeps all events in memory and loses them at a restart. ``env`` adds to
    its environment. Raises `CoreMissing` if the version is not built, `CoreFailed` if it does not start.
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
    """Build the missing versions. Raises `CoreMissing` if a build tool is missing or a build fails.

    A Core is built in a temporary folder that is renamed at the end, so that an interrupted build never looks complete.
    """
    cores = folder()
    if not [version for version in versions if find(version) is None]:
        _print("Everything is built.")
        return
    cargo = _cargo()
    cores.mkdir(parents=True, exist_ok=True)
    with _exclusive(cores):
        compiled = cores / ".target"
        for version in versions:
            if find(version) is None:
                _build(cargo, cores, version, compiled)
        shutil.rmtree(compiled, ignore_errors=True)


def _build(cargo: str, cores: Path, version: str, compiled: Path) -> None:
    root = cores / f".building-{version}"
    shutil.rmtree(root, ignore_errors=True)
    _print(f"Building Allsource Core {version}; this takes about ten minutes.")
    command = [cargo, "install", PROGRAM, "--version", version, "--bin", PROGRAM, "--locked", "--root", str(root)]
    done = subprocess.run(command, env={**os.environ, "CARGO_TARGET_DIR": str(compiled)}, check=False)
    if done.returncode != 0 or not os.access(_program(root), os.X_OK):
        raise CoreMissing(f"Allsource Core {version} could not be built: cargo exited with {done.returncode}")
    shutil.rmtree(cores / version, ignore_errors=True)
    root.rename(cores / version)
    _print(f"Built {_program(cores / version)}")


def _cargo() -> str:
    needed = "building Allsource Core needs Rust 1.92 or newer, from rustup (https://rustup.rs)"
    cargo, rustc = shutil.which("cargo"), shutil.which("rustc")
    if cargo is None or rustc is None:
        raise CoreMissing(f"{'rustc' if cargo else 'cargo'} is not on the path: {needed}")
    output = subprocess.run([rustc, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    found = re.match(r"rustc (\d+)\.(\d+)", output)
    if found is None or (int(found[1]), int(found[2])) < RUST:
        raise CoreMissing(f"{output or rustc} is too old: {needed}")
    return cargo


@contextmanager
def _exclusive(cores: Path) -> Iterator[None]:
    """Hold the build lock of the folder, which other processes wait for."""
    with (cores / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _print("Waiting for another build.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _print(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.cores", description="Build and list the Allsource Cores that the tests run."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build the versions that are missing")
    building.add_argument("version", nargs="*", help=f"default: {OLDEST} and {NEWEST}")
    commands.add_parser("list", help="list the versions and whether they are built")
    given = parser.parse_args(arguments)
    if given.command == "list":
        for version in (OLDEST, NEWEST):
            _print(f"{version}  {find(version) or 'not built'}")
        return 0
    try:
        build(given.version or (OLDEST, NEWEST))
    except CoreMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
