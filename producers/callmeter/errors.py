"""The error tree. Each class carries the exit code the command line ends with.

CallmeterError                    70  a bug, if it reaches the user bare
├── UsageError                    64  wrong usage of a command or an API
├── DataError                     65  bad input data
├── UnreachableError              69  a service is not reachable
├── CannotWriteError              73  a file, directory or store cannot be written
├── ConfigError                   78  bad configuration
│   ├── MissingExtraError         78  a part is not installed; names the pip install
│   └── NewerSchemaError          78  the store or state was written by a newer callmeter
└── DeliveryError                  1  flush_or_raise: something is pending or was lost
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_NO = 1
EXIT_INCOMPLETE = 2


class CallmeterError(Exception):
    """Root of every error callmeter raises on purpose. The message says what to do."""

    exit_code = 70


class UsageError(CallmeterError):
    exit_code = 64


class DataError(CallmeterError):
    exit_code = 65


class UnreachableError(CallmeterError):
    exit_code = 69


class CannotWriteError(CallmeterError):
    exit_code = 73


class ConfigError(CallmeterError):
    exit_code = 78


class MissingExtraError(ConfigError):
    """A part that is not installed was asked for."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed: pip install 'callmeter[{extra}]'")
        self.extra = extra


class NewerSchemaError(ConfigError):
    """The store, the log or a state row was written by a newer version of callmeter."""


class DeliveryError(CallmeterError):
    exit_code = 1
