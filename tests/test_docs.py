"""The links of the Markdown files lead somewhere.

Sphinx checks those between the pages of its site when it builds that, see `.ci/run`.
"""

import re
from pathlib import Path

import pytest

from frcnn_jax import config
from frcnn_jax.config.loading import load_config

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """What GitHub and MyST make of the headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(path):
    links = re.findall(
        r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", CODE.sub("code", path.read_text())
    )
    broken = []
    for link in (first or second for first, second in links):
        if re.match(r"\w+:", link):  # on the web
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_walkthrough_has_the_options_of_the_notebook():
    text = (ROOT / "docs" / "walkthrough.md").read_text()
    (cell,) = re.findall(r"^notebook_config = .*?^\)$", text, re.DOTALL | re.MULTILINE)
    variables = dict(vars(config))
    exec(cell, variables)
    expected = load_config(ROOT / "configs" / "notebook.py").model
    assert variables["notebook_config"] == expected


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
