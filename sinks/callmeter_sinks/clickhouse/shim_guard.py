"""What a reader over the shim may ask: judged on the engine's own reading of the statement.

Two walls. The engine runs every statement with ``readonly = 1``: no writes, no DDL, no settings,
no table functions that reach outside (``url``, ``remote``, ``s3``, ``file``, …). What that setting
lets through is refused here: ``INTO OUTFILE``, which the in-process client would write; the
functions ``file`` and ``Python``, which read files and variables of this process; SYSTEM and KILL.
The text that is judged is ``formatQuery``'s, the engine's parser's, so no comment, quoting or
escape hides a name, and there is exactly one statement.
"""

from __future__ import annotations

import re

_ALLOWED = re.compile(r"[\s(]*(SELECT|WITH|SHOW|DESCRIBE|EXPLAIN|EXISTS)\b")
_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL)
_QUOTED = re.compile(r"[`\"]")
_OUTSIDE = re.compile(
    r"\bINTO\s+OUTFILE\b|\bFROM\s+INFILE\b|\b(file|python|executable|catboostEvaluate)\s*\(",
    re.IGNORECASE,
)

#: Settings a reader may give. Others could write (output_format_schema) or read
#: (format_template_row) files, or lift a limit of the engine.
_SETTING = re.compile(
    r"(max_(execution_time|result_rows|result_bytes|rows_to_read|bytes_to_read|threads|block_size"
    r"|rows_to_group_by)|(result|timeout|read|group_by)_overflow_mode"
    r"|output_format_(json|native|arrow|parquet|csv|tsv|decimal|pretty)_\w+"
    r"|date_time_output_format|session_timezone|join_use_nulls|extremes|log_comment"
    r"|select_sequential_consistency|use_query_cache|prefer_column_name_to_alias)\Z"
)


def refusal(canonical: str) -> str | None:
    """Why a reader may not run a statement that ``formatQuery`` has written; None if it may."""
    bare = _LITERAL.sub("''", canonical)
    if not _ALLOWED.match(bare):
        return "only SELECT, WITH, SHOW, DESCRIBE, EXPLAIN and EXISTS are answered here"
    outside = _OUTSIDE.search(_QUOTED.sub("", bare))
    if outside:
        return f"{' '.join(outside[0].split())} reaches outside the store"
    return None


def may_set(name: str) -> bool:
    """Whether a reader may give this setting."""
    return bool(_SETTING.match(name))
