"""pyproject.toml, constraints.txt, environment.yml and the built files say the same."""

import ast
import re
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.processes import run_python

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "pyro_afslvm"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
REQUIREMENTS = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in group
]
PYTHON = SpecifierSet(PROJECT["requires-python"])

# What `import pyro_afslvm` may not cost; each of these takes a good part of a second.
HEAVY = [
    "arviz",
    "av",
    "jsonargparse",
    "lightning",
    "matplotlib",
    "pandas",
    "sklearn",
    "tensorboard",
    "torchmetrics",
    "xarray",
    "zarr",
]


def exact(requirement: Requirement) -> Version:
    """Give the one version that ``name==version`` allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "==", requirement
    assert "*" not in specifier.version, requirement
    return Version(specifier.version)


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    names = [canonicalize_name(requirement.name) for requirement in parsed]
    assert len(names) == len(set(names)), "a name is pinned twice"
    return dict(zip(names, map(exact, parsed), strict=True))


def conda() -> tuple[str, list[str]]:
    """Give the Python version and the pip section of environment.yml."""
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (python,) = (d for d in dependencies if isinstance(d, str) and d.startswith("python="))
    (section,) = (d["pip"] for d in dependencies if isinstance(d, dict))
    return python.removeprefix("python="), section


def test_every_dependency_is_pinned_within_its_range() -> None:
    pinned = pins()
    for requirement in REQUIREMENTS:
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{version} is outside {requirement}"


def test_pins_name_no_build_and_no_address() -> None:
    assert all(version.local is None for version in pins().values())
    for name in ("constraints.txt", "environment.yml", "pyproject.toml"):
        assert "://" not in (ROOT / name).read_text(), name


def test_environment_lists_the_same_dependencies_and_versions() -> None:
    _, section = conda()
    options = [line for line in section if line.startswith("-")]
    listed = [Requirement(line) for line in section if not line.startswith("-")]
    assert options == ["--constraint constraints.txt", "--editable ."]

    def identity(requirement: Requirement) -> tuple[str, frozenset[str]]:
        return canonicalize_name(requirement.name), frozenset(requirement.extras)

    assert sorted(map(identity, listed)) == sorted(set(map(identity, REQUIREMENTS)))
    for requirement in listed:
        assert exact(requirement) == pins()[canonicalize_name(requirement.name)], requirement


def test_python_versions_agree() -> None:
    supported = [f"3.{minor}" for minor in range(30) if PYTHON.contains(f"3.{minor}.1")]
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert supported == classifiers
    assert conda()[0] in supported
    assert PYPROJECT["tool"]["mypy"]["python_version"] == supported[0]
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + supported[0].replace(".", "")
    lower, upper = re.search(
        r"\((3, \d+)\) <= sys.version_info\[:2\] < \((3, \d+)\)", (ROOT / "Makefile").read_text()
    ).groups()
    assert SpecifierSet(f">={lower},<{upper}".replace(", ", ".")) == PYTHON


def build(target: str, folder: Path) -> Path:
    run_python("-m", "hatchling", "build", "-t", target, "-d", str(folder))
    (built,) = folder.iterdir()
    return built


def test_wheel_holds_the_library_and_nothing_else(tmp_path: Path) -> None:
    import pyro_afslvm

    with zipfile.ZipFile(build("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
        scripts = wheel.read(f"{info}/entry_points.txt").decode()

    assert {name.split("/")[0] for name in names} == {"pyro_afslvm", info}
    sources = [p for s in ("*.py", "*.html", "py.typed") for p in LIBRARY.rglob(s)]
    assert {str(path.relative_to(ROOT)) for path in sources} <= names
    assert metadata["Name"] == "pyro-afslvm"
    assert metadata["Version"] == pyro_afslvm.__version__
    assert "afslvm = pyro_afslvm.cli.main:main" in scripts


def test_sdist_holds_sources_programs_and_tests_but_no_data(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for folder in ("pyro_afslvm", "models", "inference", "notebooks", "benchmarks", "tests"):
        present = {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*.py")}
        assert present <= names, folder
    assert not {name for name in names if name.endswith((".npy", ".gz", ".pt", ".ckpt", ".gif"))}


@pytest.mark.parametrize("touch", [False, True], ids=["import", "every name"])
def test_import_loads_nothing_heavy(touch: bool) -> None:
    program = f"""
import sys
import pyro_afslvm
if {touch}:
    for name in pyro_afslvm.__all__:
        getattr(pyro_afslvm, name)
print(*sorted({set(HEAVY)} & set(sys.modules)))
"""
    assert run_python("-c", program).stdout.split() == []


def imported(path: Path) -> set[str]:
    """Give the top-level names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module or "")
    return {name.split(".")[0] for name in found}


def test_library_never_imports_the_programs_on_it() -> None:
    paths = [*LIBRARY.rglob("*.py")]
    assert len(paths) > 100
    for path in paths:
        assert not imported(path) & {"models", "inference", "tests", "benchmarks"}, path


def test_library_imports_only_what_it_declares() -> None:
    home = {
        "google-crc32c": "google_crc32c",
        "pillow": "PIL",
        "protobuf": "google",
        "pyro-ppl": "pyro",
        "pyyaml": "yaml",
        "scikit-learn": "sklearn",
    }
    extras = (texts for name, texts in PROJECT["optional-dependencies"].items() if name != "dev")
    texts = [text for group in (PROJECT["dependencies"], *extras) for text in group]
    declared = {home.get(name, name) for name in (Requirement(text).name for text in texts)}
    for path in LIBRARY.rglob("*.py"):
        foreign = imported(path) - set(sys.stdlib_module_names) - {"pyro_afslvm"}
        assert foreign <= declared, f"{path.relative_to(ROOT)}: {foreign - declared}"
