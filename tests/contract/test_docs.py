"""Reference pages are as the code writes them; the site's navigation has every page."""

from __future__ import annotations

import subprocess
import sys

import yaml

from support.operations import ROOT, script


def test_the_generated_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/make_reference.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_navigation_has_every_page() -> None:
    config = {"docs_dir": str(ROOT / "docs"), "repo_url": "https://example.com/r"}
    nav = script("docs_site").on_config(config)["nav"]
    listed = {page for section in nav for pages in section.values() for page in _flat(pages)}
    there = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert listed == there


def _flat(pages: object) -> list[str]:
    return [pages] if isinstance(pages, str) else list(pages)  # type: ignore[call-overload]


def test_the_site_asks_no_other_host() -> None:
    told = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert told["strict"] is True
    assert told["theme"]["font"] is False
