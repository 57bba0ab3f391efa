"""``python -m callmeter`` is the command line."""

from __future__ import annotations

import sys

from callmeter.cli import main

sys.exit(main())
