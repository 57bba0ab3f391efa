"""The git repository that a run is started in, without anybody's credentials."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

UNKNOWN_REPOSITORY: Mapping[str, Any] = {
    "commit_hash": None,
    "branch": None,
    "is_dirty": None,
    "remote_url": None,
}
_TIMEOUT_S = 5.0


def git_context(directory: str | None = None) -> dict[str, Any]:
    """Commit, branch, whether tracked files are changed, and the remote ``origin``.

    All null outside of a repository, in one without a commit, and where git is not installed.
    """
    commit = _said("rev-parse", "HEAD", directory=directory)
    if commit is None:
        return dict(UNKNOWN_REPOSITORY)
    dirty = _run("diff-index", "--quiet", "HEAD", "--", directory=directory)
    remote = _said("config", "--get", "remote.origin.url", directory=directory)
    return {
        "commit_hash": commit,
        "branch": _said("rev-parse", "--abbrev-ref", "HEAD", directory=directory),
        "is_dirty": None
        if dirty is None or dirty.returncode not in (0, 1)
        else dirty.returncode > 0,
        "remote_url": None if remote is None else scrub_url(remote),
    }


def scrub_url(url: str) -> str:
    """A URL without user, password, query and fragment; scp-like addresses stay as they are."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _said(*arguments: str, directory: str | None) -> str | None:
    """What git prints; None if it fails or prints nothing."""
    done = _run(*arguments, directory=directory)
    return None if done is None or done.returncode else done.stdout.strip() or None


def _run(*arguments: str, directory: str | None) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            # Never take the index lock of somebody who is working here.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
