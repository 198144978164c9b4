"""If this breaks, a document leads to a page, a section or a file that is not there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = [p for part in ("simclr_tf", "tools", "gin") for p in sorted((ROOT / part).rglob("*"))]
LINK = re.compile(r"\]\(\s*(?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
# A path from the project's folder; not the end of an address, and not a module's dotted name.
PATH = re.compile(r"(?<![\w/.-])(?:gin|tools|docs|simclr_tf|tests)/[\w./*-]*\w")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(document: pathlib.Path) -> set[str]:
    """The names that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_to_a_file_and_a_section(document):
    for path, section in LINK.findall(FENCED.sub("", document.read_text())):
        target = document.parent / path if path else document
        assert target.exists(), path
        assert not section or section in anchors(target), f"{path}#{section}"


# The examples of extending.md add files.
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.name != "extending.md"], ids=name)
def test_every_file_that_a_document_names_is_there(document):
    for path in PATH.findall(document.read_text()):
        assert list(ROOT.glob(path)), path


def test_every_document_that_the_code_names_is_there():
    for file in CODE:
        if file.suffix in (".py", ".gin"):
            for path in re.findall(r"\bdocs/[\w-]+\.md\b", file.read_text()):
                assert (ROOT / path).exists(), f"{path} in {name(file)}"


def test_the_index_lists_every_document():
    listed = {path for path, _ in LINK.findall((ROOT / "docs/README.md").read_text())}
    files = (path for kind in ("*.md", "*.ipynb") for path in (ROOT / "docs").glob(kind))
    there = {path.name for path in files} - {"README.md"}
    assert listed == there | {"../README.md"}
