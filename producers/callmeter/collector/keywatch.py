"""The key file of a running collector: read again when it changes, told of when keys are used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from callmeter.collector.context import CONTEXT
from callmeter.collector.keyfile import grants_of, note_used, read_keys
from callmeter.collector.keys import KeyRing
from callmeter.errors import CallmeterError

log = logging.getLogger("callmeter.collector")

#: A revoked key is refused at most this long after the file has changed.
POLL_S = 1.0
#: How often uses are written down; what a kill loses is told again at the next use.
NOTE_S = 10.0

Signature = tuple[int, int, int]


def signature(path: Path) -> Signature | None:
    """What tells that a file has changed; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


class KeyWatch:
    """Keeps a ring as its key file is."""

    def __init__(self, path: Path, ring: KeyRing) -> None:
        self._path = path
        self._ring = ring
        # What was read before the first look may be of before a change: no file has this mark, and
        # None is the mark of one that is gone.
        self._seen: Signature | None = (0, 0, 0)
        self._noted: dict[str, int] = {}
        self._may_note = True

    def look(self) -> None:
        """Take the file up if it has changed.

        A file that is gone holds no keys: everybody is refused. One that cannot be read leaves the
        keys as they were, and is said in the log: half an edit must not shut a fleet out.
        """
        now = signature(self._path)
        if now == self._seen:
            return
        self._seen = now
        try:
            grants = grants_of(read_keys(self._path))
        except CallmeterError as exc:
            log.error(  # noqa: TRY400  # a trace would say nothing more
                "keys stay as they were: %s", exc
            )
            return
        self._ring.replace_filed(grants)
        log.info("the key file has %d keys that are not revoked", len(grants))

    def note(self) -> None:
        """Write down which keys were used since the last time."""
        used = {k: at for k, at in self._ring.used_us.items() if self._noted.get(k) != at}
        if not used or not self._may_note:
            return
        try:
            note_used(self._path, used)
        except CallmeterError as exc:
            # A key file mounted to be read only: keys work, `keys list` does not know of their use.
            self._may_note = False
            log.warning("when keys were last used is not kept: %s", exc)
        self._noted.update(used)

    async def run(self) -> None:
        """Look once a second, for ever."""
        rounds = 0
        while True:
            await asyncio.sleep(POLL_S)
            self.look()
            rounds += 1
            if rounds % int(NOTE_S / POLL_S) == 0:
                await asyncio.to_thread(self.note)


KEY_WATCH: web.AppKey[KeyWatch] = web.AppKey("callmeter_key_watch", KeyWatch)


def install(app: web.Application) -> None:
    """Watch the key file for as long as the application runs, if it has one."""
    config = app[CONTEXT].config
    if config.keys_file is None:
        return
    watch = app[KEY_WATCH] = KeyWatch(config.keys_file, config.keys)

    async def follow(_app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(watch.run())
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        watch.note()

    app.cleanup_ctx.append(follow)
