#!/usr/bin/env python3
"""What must hold of the documentation.

Every relative link and every heading it names leads somewhere, the generated reference pages are as
the code writes them, and the site builds in mkdocs' strict mode (into a folder of its own).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Heading anchors as GitHub makes them."""
    titles = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """``page:target`` of each link that leads nowhere; links to other hosts are not followed."""
    text = page.read_text(encoding="utf-8")
    found = []
    for target in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        lost = not aim.exists() or (
            anchor
            and aim.suffix == ".md"
            and anchor not in anchors(aim.read_text(encoding="utf-8"))
        )
        if lost:
            found.append(f"{page.relative_to(ROOT)}: {target}")
    return found


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    pages = [ROOT / name for name in listed.stdout.splitlines()]
    broken = [link for page in pages if page.exists() for link in broken_links(page)]
    for link in broken:
        print(f"leads nowhere: {link}")
    print(f"{len(pages)} pages, {len(broken)} broken links")
    fresh = subprocess.run(
        [sys.executable, "scripts/make_reference.py", "--check"], cwd=ROOT, check=False
    )
    return 1 if broken or fresh.returncode or not site_builds() else 0


def site_builds() -> bool:
    """Whether mkdocs builds the site without a warning."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", folder],
            cwd=ROOT,
            check=False,
            # A notice of the theme's authors about their next product.
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        )
        pages = len(list(Path(folder).rglob("index.html")))
    print(f"site: {pages} pages" if done.returncode == 0 else "site: mkdocs refuses")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
