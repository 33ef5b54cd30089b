"""Sessions: ``nox`` runs the default set, ``nox -s NAME`` one of them, ``nox -l`` lists them."""

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.sessions = ["lint", "typing", "tests", "tests_lowest", "tests_trio", "examples", "docs"]
nox.options.default_venv_backend = "virtualenv"
# Each session installs what it needs, and what is there already costs little.
nox.options.reuse_venv = "yes"

PROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = ".[all]"


def installed_pythons() -> list[str]:
    """Those of the classifiers' Pythons that this machine has, on the path or through pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for version in nox.project.python_versions(PROJECT):
        homes = sorted(pyenv.glob(f"{version}.*/bin"))
        if homes:
            os.environ["PATH"] = os.pathsep.join([str(homes[-1]), os.environ["PATH"]])
        # A pyenv shim is there for every Python, and fails for those that are not chosen.
        try:
            subprocess.run([f"python{version}", "-c", ""], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        found.append(version)
    return found


PYTHONS = installed_pythons()

# What pytest makes of the tests, to explain failures, is kept for the next run: it is 1.8 s of the 5.3 s of processor
# that each of six processes needs to collect them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ENTERPRISE_GATEWAY = ("jupyter_enterprise_gateway>=3.2", "ipykernel<7", "setuptools<81")
"""It pins what is old, so it has an environment of its own."""

DISTRIBUTED = ("-n", str(3 * (os.cpu_count() or 2)), "--dist", "worksteal")
"""For pytest-xdist: tests that wait for processes and clocks leave more than half of each processor free; and who has got
many slow ones hands over some: the tests without real kernels take 118 s so, and 148 otherwise."""

WITHOUT_KERNELS = (*DISTRIBUTED, "tests", "--ignore=tests/integration")


def group(name: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, name)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests under AnyIO's pytest plugin, each on Trio and on asyncio.

    Those with real kernels, which take most of the time, run on the newest Python; on the oldest only
    some that launch them on asyncio, which watches processes otherwise there. The oldest runs asyncio's
    half, and ``tests_lowest`` Trio's; the Pythons between the two differ in nothing that asyncio's would
    show: they run Trio's. What no Python changes is marked ``once``. With arguments, all run on each.
    """
    session.install(EXTRAS, *group("tests"))
    launching = ["tests/integration/test_kernels.py", "-k", "asyncio and (gone or kill or exit)"]
    real = {PYTHONS[0]: launching, PYTHONS[-1]: ["tests/integration"]}.get(session.python, [])
    half = {PYTHONS[0]: "not trio", PYTHONS[-1]: ""}.get(session.python, "not asyncio")
    marked = "" if session.python == PYTHONS[-1] else "not once"
    session.run("pytest", *(session.posargs or [*WITHOUT_KERNELS, "-k", half, "-m", marked]))
    if real and not session.posargs:
        session.run("pytest", *DISTRIBUTED, *real, env=enterprise_gateway(session))


def enterprise_gateway(session: nox.Session) -> dict[str, str]:
    """Where the tests find an Enterprise Gateway; nothing where none can be had, and then they are skipped."""
    home = Path(session.cache_dir).absolute() / "enterprise-gateway"
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    if not (programs / "jupyter-enterprisegateway").exists():
        try:
            session.run_install("python", "-m", "venv", "--clear", str(home), external=True)
            session.run_install(
                str(programs / "python"),
                "-m",
                "pip",
                "install",
                "-q",
                *ENTERPRISE_GATEWAY,
                external=True,
            )
        except nox.command.CommandFailed:
            session.warn("no Enterprise Gateway: its tests are skipped")
            return {}
    return {"ENCHANNEL_ENTERPRISE_GATEWAY": str(programs)}


@nox.session(python=PYTHONS[0])
def tests_lowest(session: nox.Session) -> None:
    """The tests without real kernels on the lowest version of each dependency, with Trio, on the oldest Python."""
    session.install(EXTRAS, *group("tests"))
    lowest = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["server"],
    ]
    session.install(*(each.replace(">=", "==") for each in lowest))
    session.run("pytest", *WITHOUT_KERNELS, "-k", "not asyncio", "-m", "not once")


@nox.session
def tests_trio(session: nox.Session) -> None:
    """The tests that a user of pytest-trio would write."""
    session.install(EXTRAS, *group("tests"))
    session.run("pytest", "-c", "tests/pytest_trio/pytest.ini", "tests/pytest_trio")


@nox.session
def notebooks(session: nox.Session) -> None:
    """Notebooks of other projects, fetched from their releases, run by us and by ``jupyter execute``; not in the default set."""
    session.install(EXTRAS, *group("notebooks"))
    there = session.create_tmp()
    for project in ("nbclient", "nbconvert", "papermill"):
        pip = ("python", "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:")
        session.run(*pip, "-d", there, project)
    for archive in Path(there).glob("*.tar.gz"):
        shutil.unpack_archive(archive, there, filter="data")
    session.run("python", "tests/others/compare_notebooks.py", *(session.posargs or [there]))


@nox.session
def examples(session: nox.Session) -> None:
    """The example programs and their tests, against the installed wheel; a test kit's in both styles."""
    session.install(EXTRAS, *group("examples"))
    session.chdir("docs/examples")
    session.run("pytest", *DISTRIBUTED)
    for program in ("comm_app.py", "ported.py", "harness.py"):
        session.run("python", program)
    session.chdir("notebook_runner")
    session.run("pytest", "-p", "no:anyio", "tests/test_with_pytest_trio.py")
    session.run("pytest", "-p", "no:trio", "tests/test_with_anyio.py")
    session.run("python", "runner.py")


def readme_program() -> str:
    """The README's blocks of Python as one module; what is no program by itself has channels."""
    blocks = re.findall(
        r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)",
        Path("README.rst").read_text(),
        re.MULTILINE,
    )
    parts = ["from enchannel import KernelChannels as Channels"]
    for number, block in enumerate(blocks):
        if block.lstrip().startswith("async with"):
            parts.append(f"async def part_{number}(ch: Channels) -> None:\n{block}")
        else:
            inside = textwrap.indent(textwrap.dedent(block), "    ")
            parts.append(f"def part_{number}() -> None:\n{inside}")
    return "\n".join(parts)


@nox.session
def typing(session: nox.Session) -> None:
    """Types: ours, those that users of the API see, and those of the examples."""
    session.install(EXTRAS, *group("typing"), *group("examples"))
    readme = Path(session.create_tmp()) / "readme.py"
    readme.write_text(readme_program())
    session.run("mypy", "src", "tests/typing")
    session.run("mypy", str(readme), *map(str, Path("docs/examples").glob("*.py")))
    session.run("pyright")
    session.run("pyright", str(readme))
    session.run("pyright", "--verifytypes", "enchannel", "--ignoreexternal")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and a word that has no place in a repository: the paths of somebody's machine."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    if not Path(".git").exists():
        session.skip("what is in the repository, only the repository knows")
    files = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout
    for name in files.splitlines():
        match = re.search(rb"/(home|work|root)/\w", Path(name).read_bytes())
        if match:
            session.error(f"{name} names a path of a machine: {match[0]!r}")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, with every warning an error."""
    session.install(EXTRAS, *group("docs"))
    session.run("sphinx-build", "-nW", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session(python=PYTHONS[0])
def mutation(session: nox.Session) -> None:
    """How many deliberate mistakes in the core and the protocol the fast tests find; takes an hour.

    Behind it ``mutmut results`` lists those that survived, and ``mutmut show`` shows one.
    """
    session.install("-e", EXTRAS, *group("tests"), *group("mutation"))
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks; ratios within one run are what counts."""
    session.install(EXTRAS, *group("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)
