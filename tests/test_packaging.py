"""The wheel: what is in it, and that it runs with nothing but its own requirements."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ragindex

REPOSITORY = Path(__file__).resolve().parent.parent
NOT_OURS = ("pytest", "hypothesis", "mypy", "ruff", "hatchling", "peft", "sentence_transformers", "matplotlib", "bm25s")


def test_public_names_are_sorted_and_resolve() -> None:
    assert ragindex.__all__ == sorted(ragindex.__all__)
    for name in ragindex.__all__:
        assert getattr(ragindex, name).__name__ == name
    assert set(ragindex.__all__) | {"__version__"} == set(dir(ragindex))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ragindex.nothing


def test_every_module_has_what_its_all_names() -> None:
    for file in sorted((REPOSITORY / "ragindex").rglob("*.py")):
        if "integrations" in file.parts or "__all__" not in file.read_text(encoding="utf-8"):
            continue  # an integration needs its own extra
        name = ".".join(file.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(name)
        assert [item for item in module.__all__ if not hasattr(module, item)] == [], name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(REPOSITORY))
    (file,) = out.glob("ragindex-*.whl")
    return file


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and links to the distributions that it requires, and to nothing else."""
    home = tmp_path_factory.mktemp("installation") / "env"
    venv.EnvBuilder(symlinks=True, with_pip=False).create(home)
    site = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    pip("--python", str(home / "bin" / "python"), "install", "--no-deps", "--no-compile", str(wheel))
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        metadata = importlib.metadata.PathDistribution(zipfile.Path(archive, name).parent)
        wanted = [*requirements(metadata.requires or [], frozenset({"cpu"}))]
    for distribution in closure(wanted):
        for entry in top_level(distribution):
            target = site / entry.name
            if not target.exists():  # namespace packages share a folder
                target.symlink_to(entry)
    return home


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


def requirements(lines: Iterable[str], extras: frozenset[str]) -> Iterator[Requirement]:
    """The requirements that apply here, with the given extras."""
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def closure(wanted: list[Requirement]) -> list[importlib.metadata.Distribution]:
    """Every installed distribution that `wanted` needs, directly or not."""
    found: dict[tuple[str, frozenset[str]], importlib.metadata.Distribution] = {}
    while wanted:
        requirement = wanted.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in found:
            found[key] = importlib.metadata.distribution(requirement.name)
            wanted.extend(requirements(found[key].requires or [], key[1]))
    return list(found.values())


def top_level(distribution: importlib.metadata.Distribution) -> set[Path]:
    """The files and folders in site-packages that a distribution owns, by its RECORD."""
    root = Path(str(distribution.locate_file("")))
    names = {file.parts[0] for file in distribution.files or []}
    return {root / name for name in names if name != ".." and (root / name).exists()}


def run(installation: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{installation / 'bin'}:/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    program = [str(installation / "bin" / command[0]), *command[1:]]
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def test_the_wheel_carries_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        bundled = archive.getinfo("ragindex/encoder/bundled/model.safetensors")
    assert bundled.file_size == (REPOSITORY / "ragindex/encoder/bundled/model.safetensors").stat().st_size
    for folder, inside in (("ragindex", "ragindex"), ("migrations", "ragindex/migrations")):
        ours = [file for file in (REPOSITORY / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
        missing = {f"{inside}/{file.relative_to(REPOSITORY / folder).as_posix()}" for file in ours} - names
        assert missing == set()
    for corpus in ("codebase", "handbook", "science"):
        assert f"ragindex/sample_corpora/{corpus}/queries.jsonl" in names
        assert any(name.startswith(f"ragindex/sample_corpora/{corpus}/corpus/") for name in names)
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"ragindex", "haystack_integrations"}
    # A namespace that other integrations share: a file of ours at its top would hide theirs.
    shared = [name for name in names if name.startswith("haystack_integrations/") and "/ragindex/" not in name]
    assert shared == []
    assert [
        name for name in names if re.search(r"__pycache__|\.pyc$|\.ragindex/|^ragindex/tests/|\.partial$", name)
    ] == []


def test_metadata_leaves_faiss_and_tools_to_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        metadata = importlib.metadata.PathDistribution(zipfile.Path(archive, name).parent)
        core = {canonicalize_name(item.name) for item in requirements(metadata.requires or [], frozenset())}
        cpu = {canonicalize_name(item.name) for item in requirements(metadata.requires or [], frozenset({"cpu"}))}
        assert metadata.version == ragindex.__version__
    assert cpu - core == {"faiss-cpu"}
    assert core.isdisjoint({"faiss-cpu", "faiss-gpu", "pytest", "hypothesis", "mypy", "ruff", "peft", "matplotlib"})


def test_the_installation_is_only_the_runtime(installation: Path, tmp_path: Path) -> None:
    """Otherwise the next tests would prove nothing."""
    script = "\n".join(
        [
            "import importlib.util, ragindex",
            f"print([name for name in {NOT_OURS!r} if importlib.util.find_spec(name)])",
            "print(ragindex.__file__)",
        ]
    )
    done = run(installation, tmp_path, "python", "-c", script)
    visible, origin = done.stdout.splitlines()
    assert visible == "[]"
    assert Path(origin).is_relative_to(installation)


def test_every_module_outside_training_imports_without_extras(installation: Path, tmp_path: Path) -> None:
    script = """
import importlib, pkgutil, ragindex
names = [module.name for module in pkgutil.walk_packages(ragindex.__path__, "ragindex.")]
skipped = ("ragindex.train", "ragindex.migrations", "ragindex.sample_corpora", "ragindex.integrations")
# The packages themselves import without their extras.
skipped += ("ragindex.mcp_server.", "ragindex.server.", "ragindex.listening.graceful")
for name in names:
    if not name.startswith(skipped):
        importlib.import_module(name)
print(len(names) > 40)
"""
    done = run(installation, tmp_path, "python", "-W", "error", "-c", script)
    assert done.stdout == "True\n", done.stderr


def test_installed_program_tells_its_version(installation: Path, tmp_path: Path) -> None:
    done = run(installation, tmp_path, "ragindex", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert ragindex.__version__ in done.stdout


def test_installed_program_runs_its_demo(installation: Path, tmp_path: Path) -> None:
    """Migrations, bundled encoder and sample corpora are all taken from the wheel."""
    done = run(installation, tmp_path, "ragindex", "demo", "--keep", "kept")
    assert done.returncode == 0, done.stderr
    assert "fire-and-evacuation.pdf" in done.stdout
    assert "No hit." not in done.stdout
    asked = run(installation, tmp_path / "kept", "ragindex", "query", "verify_signature tolerance", "-k", "1", "--json")
    assert asked.returncode == 0, asked.stderr
    assert '"codebase/quern/webhooks.py"' in asked.stdout
    shutil.rmtree(tmp_path / "kept")


def test_without_faiss_the_error_names_the_extra(installation: Path, tmp_path: Path) -> None:
    site = next((installation / "lib").glob("python*")) / "site-packages"
    faiss = site / "faiss"
    target = faiss.readlink()
    faiss.unlink()
    try:
        (tmp_path / "a.txt").write_text("A key is rotated every ninety days.", encoding="utf-8")
        done = run(installation, tmp_path, "ragindex", "index", ".")
    finally:
        faiss.symlink_to(target)
    assert done.returncode == 2
    assert "ragindex[cpu]" in done.stderr
    assert "Traceback" not in done.stderr
