"""README, CONTRIBUTING, SECURITY and docs/: links and paths lead somewhere, every page is found and says what for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *PAGES]
README_BYTES = 8192
OPENING = "After this page you"

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+)$", re.MULTILINE)
PATH = re.compile(r"[\w.-]+(?:/[\w.<>*-]+)*/?")
WRITTEN_BY_TOOLS = {"build", "dist", "out", "runs"}
"""Folders that .gitignore names: they lie beside the others on some machines only."""


def anchors(text: str) -> set[str]:
    """What a link into a page may name behind its `#`, by GitHub's rule."""
    headings = HEADING.findall(FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """Relative links of a document that lead to no file, or to no heading of it."""
    broken = []
    for target in LINK.findall(FENCE.sub("", document.read_text("utf-8"))):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        file = document.parent / name if name else document
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            broken.append(target)
    return broken


def named_paths(text: str, root: Path) -> Iterator[str]:
    """Words between back-ticks, and in fences, that begin with a folder at the root of the repository.

    `runtime/sinks/`, `python scripts/run_tests.py` and `deploy/line.env` do; `pictures/good` and `edge_ad.open` do not.
    """
    folders = {path.name for path in root.iterdir() if path.is_dir()} - WRITTEN_BY_TOOLS
    inline = SPAN.findall(FENCE.sub("", text))
    for word in " ".join([*inline, *FENCE.findall(text)]).split():
        word = word.strip("'\"(),;:")
        if PATH.fullmatch(word) and "/" in word and word.split("/")[0] in folders:
            yield word


def missing_paths(text: str, root: Path) -> list[str]:
    """Paths of the repository that a text names and that are not there; of `models/<family>/` the part before `<`."""
    missing = []
    for word in named_paths(text, root):
        fixed = re.split(r"[^/]*[<*]", word)[0]
        if not (root / fixed).exists():
            missing.append(word)
    return missing


def missing_modules(text: str, root: Path) -> list[str]:
    """Names such as `probes.py` between back-ticks that no file of the repository has."""
    names = {word for span in SPAN.findall(FENCE.sub("", text)) for word in span.split()}
    wanted = {name for name in names if re.fullmatch(r"\w+\.py", name)}
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    there = {path.name for folder in folders if folder.name not in WRITTEN_BY_TOOLS for path in folder.rglob("*.py")}
    return sorted(wanted - there - {path.name for path in root.glob("*.py")})


def unlinked(pages: list[Path], index: Path) -> list[str]:
    """Pages that the index does not lead to."""
    linked = {target.partition("#")[0] for target in LINK.findall(index.read_text("utf-8"))}
    return [page.name for page in pages if page != index and page.name not in linked]


def says_what_for(text: str) -> bool:
    """Whether a page begins with a title and then one sentence on what the reader will be able to do."""
    title, blank, opening, *_ = [*text.split("\n"), "", ""]
    return title.startswith("# ") and not blank and opening.startswith(OPENING)


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in paths]


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_every_link_leads_somewhere(document: Path) -> None:
    assert broken_links(document) == []


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_every_path_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    assert missing_paths(text, ROOT) == [] and missing_modules(text, ROOT) == []


def test_every_page_is_in_the_index() -> None:
    assert len(PAGES) > 1
    assert unlinked(PAGES, ROOT / "docs" / "index.md") == []


@pytest.mark.parametrize("page", named([*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]))
def test_every_page_says_what_it_is_for(page: Path) -> None:
    assert says_what_for(page.read_text("utf-8"))


def test_the_readme_is_read_before_the_first_success() -> None:
    text = (ROOT / "README.md").read_bytes()
    assert len(text) <= README_BYTES
    assert b"\n<!-- test-command -->\n```sh\n" in text  # .ci/run takes its command from there


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    other = tmp_path / "other.md"
    page.write_text(
        "# A page\n\n## What `it` is, for\n\n[1](#what-it-is-for) [2](#else) [3](gone.md) [4](http://a/b)\n"
    )
    other.write_text("[5](page.md#a-page) [6](page.md#gone) [7](page.md)\n```\n# no [8](gone.md)\n```\n")
    assert broken_links(page) == ["#else", "gone.md"]
    assert broken_links(other) == ["page.md#gone"]


def test_a_missing_path_is_found(tmp_path: Path) -> None:
    (tmp_path / "runtime" / "sinks").mkdir(parents=True)
    (tmp_path / "runtime" / "sinks" / "mqtt.py").touch()
    good = "`runtime/sinks/`, `python runtime/sinks/mqtt.py`, `runtime/sinks/<sink>.py`, `pictures/good`, `mqtt.py`"
    bad = "`runtime/mqtt.py` and\n```sh\npython runtime/gone.py\n```\n `runtime/line/<line>.py`, `spool.py`"
    assert len(list(named_paths(good, tmp_path))) == 3
    assert missing_paths(good, tmp_path) == [] and missing_modules(good, tmp_path) == []
    assert missing_paths(bad, tmp_path) == ["runtime/mqtt.py", "runtime/line/<line>.py", "runtime/gone.py"]
    assert missing_modules(bad, tmp_path) == ["spool.py"]


def test_a_page_that_nobody_finds_is_found(tmp_path: Path) -> None:
    index, line, lost = tmp_path / "index.md", tmp_path / "line.md", tmp_path / "lost.md"
    index.write_text("[a line](line.md#deadlines)")
    assert unlinked([index, line, lost], index) == ["lost.md"]


def test_a_page_without_a_purpose_is_found() -> None:
    assert says_what_for("# A line\n\nAfter this page you can run one.\n")
    assert not says_what_for("# A line\n\n```sh\nedge-ad run\n```\n")
    assert not says_what_for("# A line\n")
