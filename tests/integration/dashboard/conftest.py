"""The browser for the tests of this directory."""

from __future__ import annotations

from support.browser import chromium

__all__ = ["chromium"]
