"""The checks of the project, each a session: ``nox -s tests`` is the one to begin with, ``nox -l`` lists all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"

SUPPORTED = ("3.11", "3.12", "3.13")
TEST_TOOLS = (
    "pytest>=8.2",
    "pytest-asyncio>=0.24",
    "pytest-httpx>=0.30",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "trustme>=1.1",
    "uvloop>=0.21; sys_platform != 'win32'",
)

OF_PREVIOUS = ("pyreqwest>=0.11",)
"""What the previous version of the library needs in `tests/compat`, and this one does not."""

LOWEST = (
    "anyio==4.4.0",
    "certifi==2024.2.2",
    "cyclopts==3.0.0",
    "hdrhistogram==0.10.3",
    "httptools==0.6.4",
    "httpx==0.28.0",
    "msgspec==0.19.0",
    "rich==13.7.0",
    "starlette==0.40.0",
    "structlog==24.1.0",
    "truststore==0.9.0",
    "uvicorn==0.35.0",
    "websockets==14.0",
)
"""The lower bounds of pyproject.toml."""


PEERS = (
    "aiohttp",
    "aiosqlite",
    "asyncpg",
    "better-auth-server[fastapi,sqlalchemy]",
    "fastapi-users[sqlalchemy]",
    "pyreqwest",
    "trustme",
    "uvloop",
)
"""What the library is compared with, and what that needs: whatever is newest."""


INTEGRATED = (
    "aiosqlite",
    "better-auth-server[fastapi,passkey,sqlalchemy,sso]>=1.1",
    "fastapi-better-auth-bridge>=0.6",
    "fastapi-users[oauth]>=15",
)
"""What the library is integrated with, and what the tests of that need."""


INTEGRATION_TESTS = ("tests/integrations", "tests/test_package.py")

SITE = ("furo", "myst-parser", "sphinx>=8", "sphinx-copybutton")
"""What builds the documentation site."""


ELSEWHERE = "not crash and not long and not core and not modes and not matrix and not integrations"
"""The tests without those that have a session of their own."""

WITHOUT_DOCS = ("--ignore", "tests/docs")
"""The pages, their snippets and commands have the session ``docs``."""

CORES = "(core or modes) and not matrix and not integrations"
"""The tests on real Cores, and those of optional modes."""


RUN = ("-n", "2", "--dist", "worksteal")
"""How pytest spreads tests over the processors."""


EXPLORE_SOME, EXPLORE_ALL = {"ALLSOURCE_AUTH_EXPLORE": "some"}, {"ALLSOURCE_AUTH_EXPLORE": "all"}


def _answers(python: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def _find(version: str) -> str | None:
    """An interpreter of this version that runs; a version manager's shim on the path may not."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    candidates = [shutil.which(f"python{version}")]
    root = os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    candidates += [str(found) for found in sorted(Path(root).glob(f"versions/{version}.*/bin/python{version}"))]
    return next((found for found in candidates if found and _answers(found, version)), None)


FOUND = {version: found for version in SUPPORTED if (found := _find(version))}
for _python in FOUND.values():
    os.environ["PATH"] = f"{Path(_python).parent}{os.pathsep}{os.environ['PATH']}"
PYTHONS = list(FOUND)
NEWEST = PYTHONS[-1]


def _install(session: nox.Session, *tools: str) -> None:
    session.install("-q", ".[all]", *tools)


STARTED_WITH = f"{sys.version_info.major}.{sys.version_info.minor}"


def _test(session: nox.Session, marked: str, *args: str, env: dict[str, str] | None = None) -> None:
    session.run("pytest", *RUN, "-m", marked, *args, *session.posargs, env=env)


@nox.session(python=STARTED_WITH)
def tests(session: nox.Session) -> None:
    """The test suite, on the interpreter that nox was started with: about three minutes on two cores. Needs no Rust."""
    session.log("The tests take about three minutes on two cores.")
    _install(session, *TEST_TOOLS)
    _test(session, ELSEWHERE, *WITHOUT_DOCS)


OTHERS = [version for version in PYTHONS if version != STARTED_WITH]


@nox.session(python=OTHERS)
def tests_all(session: nox.Session) -> None:
    """The test suite on the other supported interpreters that are found, without what does not depend on the interpreter."""
    _install(session, *TEST_TOOLS)
    _test(session, f"{ELSEWHERE} and not heavy", *WITHOUT_DOCS)


@nox.session(python=NEWEST)
def coverage(session: nox.Session) -> None:
    """The tests of ``tests_all`` on the newest interpreter; fails below the coverage that pyproject.toml demands."""
    _install(session, "coverage>=7.10", *TEST_TOOLS)
    # Python 3.12 and later measure lines with sys.monitoring, which costs the tests next to nothing.
    measured = {"COVERAGE_CORE": "ctrace" if session.python == "3.11" else "sysmon"}
    session.run("coverage", "erase")
    marked = f"{ELSEWHERE} and not heavy"
    session.run("coverage", "run", "-m", "pytest", *RUN, "-m", marked, *WITHOUT_DOCS, *session.posargs, env=measured)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


BOUND = (
    "tests/contract/store",
    "tests/contract/test_load_session.py",
    "tests/contract/test_wire.py",
    "tests/store",
    "tests/cli",
)
"""The tests that meet every dependency."""


@nox.session(python=PYTHONS[:1])
def lowest(session: nox.Session) -> None:
    """The tests that meet the dependencies, with the oldest versions that are allowed."""
    session.install("-q", *LOWEST, *TEST_TOOLS)
    session.install("-q", "--no-deps", ".")
    _test(session, f"{ELSEWHERE} and not heavy", *BOUND)


@nox.session(python=PYTHONS[:1])
def core(session: nox.Session) -> None:
    """Real Allsource Cores, the oldest supported and the newest; optional modes; the commands of the pages with a Core.

    Builds the Cores once, which needs Rust.
    """
    _install(session, *OF_PREVIOUS, *TEST_TOOLS)
    session.run("python", "-m", "tests.support.cores", "build")
    _test(session, CORES)
    session.run("python", "tests/docs/commands.py", "--core")


@nox.session(python=PYTHONS[:1])
def integrations(session: nox.Session) -> None:
    """Frameworks on the library, as published and over HTTP, in memory and on a real Core, which is built once."""
    _install(session, *INTEGRATED, *TEST_TOOLS)
    session.run("python", "-m", "tests.support.cores", "build")
    _test(session, "integrations", *INTEGRATION_TESTS)


@nox.session(python=PYTHONS[:1])
@nox.parametrize("extra", ["better-auth", "better-auth-bridge", "fastapi-users"])
def alone(session: nox.Session, extra: str) -> None:
    """Each integration with its own extra and nothing else: the snippets of its page."""
    session.install("-q", f".[{extra}]")
    session.run("python", "-W", "error", "tests/docs/alone.py", extra)


@nox.session(python=PYTHONS)
def matrix(session: nox.Session) -> None:
    """The full product of stores, servers, parsers and interpreters for the contract suite; the large explorations.

    What does not depend on the interpreter runs on the oldest one only: the explorations with every fault, the longest random
    sequences, the planted bugs, and the integrations on every store. Takes hours.
    """
    _install(session, *TEST_TOOLS)
    session.run("python", "-m", "tests.support.cores", "build")
    if session.python != PYTHONS[0]:
        _test(session, "not heavy and not tables", "tests/contract", env=EXPLORE_ALL)
        return
    _test(session, "not crash", "tests/contract", "tests/store", env=EXPLORE_ALL)
    _test(session, "long", "tests/protocol", env=EXPLORE_ALL)
    _test(session, "not crash", "tests/model", env=EXPLORE_ALL)
    session.run("python", "-m", "tests.mutants")
    _install(session, *INTEGRATED)
    _test(session, "integrations", *INTEGRATION_TESTS, env=EXPLORE_ALL)


@nox.session(python=PYTHONS[:1])
def campaign(session: nox.Session) -> None:
    """Kills, restarts, lost replies and contention at full size, on files and on real Cores; the HTTP engine's tests at full
    size: up to two hours."""
    _install(session, *TEST_TOOLS)
    session.run("python", "-m", "tests.support.cores", "build")
    _test(session, "", "tests/store/allsource/http", env=EXPLORE_ALL)
    _test(session, "crash or core", "tests/processes", "tests/cores", env=EXPLORE_ALL)


@nox.session(python=PYTHONS[:1])
def crash(session: nox.Session) -> None:
    """Processes that are killed again and again while they write."""
    _install(session, *TEST_TOOLS)
    _test(session, "crash", "tests/processes")


@nox.session(python=PYTHONS[:1])
def protocol(session: nox.Session) -> None:
    """Every interleaving of two mutations with a fault at every step, samples of three; longer random sequences.

    The session ``matrix`` explores the largest of them with faults.
    """
    _install(session, *TEST_TOOLS)
    _test(session, "long and not matrix", "tests/protocol", env=EXPLORE_SOME)
    _test(session, "not matrix", "--hypothesis-seed=20261123", "tests/model", env=EXPLORE_SOME)


@nox.session(python=PYTHONS[:1])
def mutants(session: nox.Session) -> None:
    """Planted bugs, one at a time: the tests must notice each of them; ``-- --list`` shows them, ``-- NAME`` runs one."""
    _install(session, *TEST_TOOLS)
    session.run("python", "-m", "tests.mutants", *session.posargs)


READ_BY_OTHERS = {
    "github-workflows": [".github/workflows/tests.yml", ".github/workflows/weekly.yml"],
    "github-issue-forms": [".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/feature.yml"],
    "github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
}
"""Schemas, and the files that must match them."""


@nox.session(python=NEWEST)
def lint(session: nox.Session) -> None:
    """Format and lint; the forms, the workflows and the hooks that other tools read."""
    session.install("-q", "check-jsonschema", "pre-commit", "ruff")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("pre-commit", "validate-config", ".pre-commit-config.yaml")
    for schema, files in READ_BY_OTHERS.items():
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files, silent=True)


@nox.session(python=PYTHONS[:1])
def types(session: nox.Session) -> None:
    """Types, checked by mypy and pyright: strict in the package; and that every public name has its types written down."""
    _install(session, "mypy", "nox", "pyright[nodejs]", *INTEGRATED, *TEST_TOOLS)
    session.run("mypy")
    quiet = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # that there is a newer pyright
    session.run("pyright", env=quiet)
    session.run("pyright", "--verifytypes", "allsource_auth", "--ignoreexternal", silent=True, env=quiet)


@nox.session(python=NEWEST)
def dist(session: nox.Session) -> None:
    """The wheel and the source distribution: what they contain, and the wheel alone, installed and type-checked."""
    session.install("-q", "build", "mypy", "twine")
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(folder / "dist"), silent=True)
    (wheel,), (sdist,) = ([str(path) for path in (folder / "dist").glob(name)] for name in ("*.whl", "*.tar.gz"))
    session.run("twine", "check", "--strict", wheel, sdist)
    session.run("python", "tests/packaging/check_contents.py", wheel, sdist)
    session.run("python", "-m", "venv", "--clear", str(folder / "alone"))
    python = str(folder / "alone" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
    session.run(python, "-m", "pip", "install", "-q", wheel, external=True)
    session.run(python, "-I", "-W", "error", "tests/packaging/check_installed.py", external=True)
    program = shutil.copy("tests/typing/program.py", folder)
    with session.chdir(folder):  # so that mypy finds the installed package, not the checkout
        options = ("--strict", "--config-file=", "--cache-dir", "mypy", "--python-executable", python)
        session.run("mypy", *options, program, env={"PYTHONPATH": ""})


@nox.session(python=PYTHONS[:1])
def docs(session: nox.Session) -> None:
    """The documentation site, its links, and all snippets, examples and commands on its pages and in the README.

    ``-- site`` only builds the site and checks its links. It is in docs/_build/html.
    """
    _install(session, *SITE, *INTEGRATED, *TEST_TOOLS)
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-q", "-a", "-E", "docs", "docs/_build/html")
    session.run("python", "tests/docs/links.py", "docs/_build/html")
    if session.posargs != ["site"]:
        session.run("pytest", "-n", "2", "tests/docs", *session.posargs)
        session.run("python", "tests/docs/commands.py")


# What is measured: the quick form, which shows that it works, and the full one, whose figures and plots go to docs.
QUICK = {
    "latest_state-embedded": "latest_state.py --store embedded --sessions 20000 --reads 10000 --rates 1000 --seconds 2",
    "latest_state-served": "latest_state.py --store {served} --sessions 500 --reads 500 --callers 1,16",
    "http_engine": "http_engine.py --store {last} --quick",
    "operations": "operations.py --store embedded,{served} --entities 200 --calls 2",
    "sign_up": "sign_up.py --sign-ups 1000",
    "scale": "scale.py --store embedded,{served} --entities 100,1000 --calls 100",
    "memory": "memory.py --store {last} --callers 1000",
    "startup": "startup.py --rounds 3",
}
FULL = {
    "latest_state-embedded": "latest_state.py --store embedded --callers 1,8,32,128 --rates 1000,5000",
    "latest_state-served": "latest_state.py --store {served} --callers 1,8,32,128 --rates 200,500 --reads 4000",
    "http_engine": "http_engine.py",
    "operations": "operations.py --store embedded,{served}",
    "archive": "operations.py --archive",
    "sign_up": "sign_up.py",
    "scale-embedded": "scale.py --entities 1000,10000,100000,1000000",
    "scale-cores": "scale.py --store core-0.23.0,core-0.27.0",
    "memory": "memory.py",
    "startup": "startup.py",
}
"""By the name of the file that the figures go to."""


@nox.session(python=PYTHONS[:1])
def bench(session: nox.Session) -> None:
    """The benchmarks, quickly; with ``-- --full`` in full, into ``docs/results`` and ``docs/plots``, which takes hours.

    Those real Cores are measured that the session ``core`` has built; the full form needs them.
    """
    _install(session, "matplotlib")
    full = "--full" in session.posargs
    folder = Path("docs/results") if full else Path(session.create_tmp())
    find = "from tests.support.cores import NEWEST, OLDEST, find; print(*filter(find, (OLDEST, NEWEST)))"
    found = str(session.run("python", "-c", find, silent=True)).split()
    served = ["local", *(f"core-{version}" for version in found)]
    if len(served) < 3:
        session.warn("a Core that is not built is not measured: nox -s core builds it")
    drawn = []
    for name, line in (FULL if full else QUICK).items():
        script, *options = line.format(served=",".join(served), last=served[-1]).split()
        file = str(folder / f"{name}.json")
        session.run("python", f"benchmarks/{script}", *options, "--json", file)
        drawn += [file] if name.startswith(("latest_state", "scale")) else []
    plots = "docs/plots" if full else str(folder / "plots")
    session.run("python", "benchmarks/plots.py", *drawn, "--folder", plots)
    session.run("python", "benchmarks/compare.py", drawn[0], drawn[0], silent=not full)


@nox.session(python=PYTHONS[:1])
def bench_peers(session: nox.Session) -> None:
    """The library against better_auth, fastapi-users and other HTTP clients; ``-- --quick`` for a first look.

    Needs a real Core, which the session ``core`` builds, or ``-- --store local``; and PostgreSQL, which it installs as root.
    ``-- http`` compares the HTTP engine in detail, and needs no PostgreSQL.
    """
    _install(session, *PEERS)
    if session.posargs[:1] == ["http"]:
        session.run("python", "benchmarks/http_engine.py", "--peers", *session.posargs[1:])
    else:
        session.run("python", "benchmarks/peers.py", *session.posargs)


@nox.session(python=PYTHONS[:1])
def bench_integrations(session: nox.Session) -> None:
    """better_auth over HTTP on the library against its own adapter; ``-- --quick`` for a first look.

    Needs what ``bench_peers`` needs.
    """
    _install(session, *PEERS)
    session.run("python", "benchmarks/better_auth_http.py", "--postgres", *session.posargs)
