"""mkdocs' hook: the navigation from the folders, and links that leave docs/ lead to the repository.

So a page links the same in the repository, in an editor and on the site, and a new page is in the
navigation without a second list.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)\s#]+)((?:#[^)\s]*)?\))")
#: Guides in the order in which they are read; the rest follow by name.
_FIRST = ("quickstart", "sdk", "command-line", "budgets", "prices", "queries")
_RUNNING = ("deploy", "sizing", "operations", "runbook", "collector", "workers", "kafka-security")
_NAMES = ("synalinks", "sygra", "syvain", "synapsekit")


def on_config(config: Any) -> Any:
    """Navigation: guides by what they are for, then reference and decisions."""
    docs = Path(config["docs_dir"])
    guides = {page.stem for page in (docs / "guides").glob("*.md")}
    rest = sorted(guides - {*_FIRST, *_RUNNING, *_NAMES})

    def pages(names: tuple[str, ...] | list[str]) -> list[str]:
        return [f"guides/{name}.md" for name in names if name in guides]

    config["nav"] = [
        {"Home": "index.md"},
        {"Using it": pages(_FIRST)},
        {"Running it": pages([*_RUNNING, *rest])},
        {"Names you know": pages(_NAMES)},
        {"Reference": [f"reference/{p.name}" for p in sorted((docs / "reference").glob("*.md"))]},
        {"Decisions": [f"decisions/{p.name}" for p in sorted((docs / "decisions").glob("*.md"))]},
    ]
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Relative links out of docs/ become links into the repository; folders too."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")
    root = Path(config["docs_dir"]).parent

    def elsewhere(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2]))
        inside = target.startswith("docs/") and not (root / target).is_dir()
        if inside or not (root / target).exists():
            return link[0]  # strict mode judges it
        return f"{link[1]}{config['repo_url']}/blob/main/{target}{link[3]}"

    return _LINK.sub(elsewhere, markdown)
