"""The examples of the README run, one after the other, as one program; links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.support.processes import ROOT, run_python

README = ROOT / "README.md"


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) > 2
    program = "\n".join(examples).replace("steps=100", "steps=3")
    run_python("-W", "error::UserWarning:pyro_afslvm", "-c", program, cwd=tmp_path, timeout=240)
    assert (tmp_path / "results.nc").exists()


def test_the_programs_on_flows_run(tmp_path: Path) -> None:
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "docs/flows.md").read_text(), re.DOTALL)
    assert len(programs) == 2  # covariates, and a flow of one's own
    for program in programs:
        run_python("-W", "error", "-c", program, cwd=tmp_path, timeout=120)


def test_the_program_on_series_draws_bands(tmp_path: Path) -> None:
    (program,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/series.md").read_text(), re.DOTALL
    )
    program = program.replace("steps=100", "steps=3")
    run_python("-W", "error::UserWarning:pyro_afslvm", "-c", program, cwd=tmp_path, timeout=120)
    assert (tmp_path / "bands.png").stat().st_size > 10_000


@pytest.mark.parametrize("page", [README, *sorted(ROOT.glob("docs/*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not target(page, link).exists()]
    assert missing == []


def target(page: Path, link: str) -> Path:
    """Where a link leads; the site has the notebooks beside its pages."""
    of_site = page != README and link.startswith("notebooks/")
    return (ROOT if of_site else page.parent) / link


def test_the_site_is_linked() -> None:
    assert "](docs/index.md)" in README.read_text()
