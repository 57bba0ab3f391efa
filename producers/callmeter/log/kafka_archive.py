"""Kafka's classes as the JVM wants them, written down once: a broker starts in half of the time.

Java's application class data sharing (JEP 350): a JVM that ends writes the classes that it has
loaded into an archive, and later ones map it. One that does not fit the JVM or the jars is passed
over by Java itself. ``python -m callmeter.log.kafka_archive`` fetches Kafka's jars, prints where
they are, and writes the archive.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from callmeter.errors import CallmeterError
from callmeter.log.kafka_jars import fetch_jars, kafka_home
from callmeter.log.kafka_server import ARCHIVE_FILE, KafkaServer

_WRITING_S = 60.0


def write_archive(home: Path) -> Path:
    """The archive beside the jars, written now by a broker that starts and ends if there is none.

    What starting a broker raises.
    """
    archive = fetch_jars(home) / ARCHIVE_FILE
    if not archive.exists():
        with tempfile.TemporaryDirectory(prefix="callmeter-kafka-", dir=archive.parent) as place:
            written = Path(place) / ARCHIVE_FILE
            server = KafkaServer(
                Path(place) / "kafka",
                home=home,
                quick=True,
                options=[f"-XX:ArchiveClassesAtExit={written}"],
            )
            server.start()
            server.stop(_WRITING_S)
            if written.exists():  # else it was killed over it: brokers start without
                written.replace(archive)
    return archive


def main() -> int:
    """Fetch, print the directory; one line and the documented exit code if it cannot."""
    try:
        home = kafka_home()
        libs = fetch_jars(home)
    except CallmeterError as exc:
        sys.stderr.write(f"callmeter: {exc}\n")
        return exc.exit_code
    try:
        write_archive(home)
    except CallmeterError as exc:  # brokers start without, only later
        sys.stderr.write(f"callmeter: Kafka's classes were not written down: {exc}\n")
    jars = sorted(libs.glob("*.jar"))
    size_mb = sum(jar.stat().st_size for jar in jars) / 1e6
    sys.stdout.write(f"{len(jars)} jars, {size_mb:.0f} MB in {libs}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
