"""The form of what is told of a source: an alert that is raised, or one that takes it back."""

from __future__ import annotations

from callmeter.schema.alerts import ALERT_VERSION, Alert, AlertKind, alert_id


def told(
    kind: AlertKind,
    first: AlertKind,
    *,
    log: str,
    source: str,
    about: str | int,
    at_us: int,
    message: str,
) -> Alert:
    """An alert about something of a source: ``first`` raises it, any other kind takes it back.

    ``about`` is what of the source is meant, such as a call or an envelope's number: the same is
    raised under the same id, and taken back under an id that follows from it.
    """
    own = alert_id(first.value, log, source, about)
    raised = kind is first
    return Alert(
        v=ALERT_VERSION,
        id=own if raised else alert_id(kind.value, own),
        kind=kind.value,
        rule=first.value,
        severity="warning" if raised else "info",
        at_us=at_us,
        message=message,
        log=log,
        corrects="" if raised else own,
        source=source,
    )
