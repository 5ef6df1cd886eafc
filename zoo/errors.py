"""The errors that slimzoo raises on purpose. Each message is one line: what was given, what was wanted, what to do.

SlimzooError            exit code 1: the work could not be done
├── UsageError          exit code 2: the request itself is wrong (an unknown name, a taken output directory)
├── DataError           exit code 3: the images or labels are at fault
└── GateError           exit code 4: the work was done, and missed its budget or its accuracy gate

Interrupted (a KeyboardInterrupt)   exit code 130 or 143: stopped by Ctrl-C or SIGTERM
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class SlimzooError(Exception):
    """Its text is written with the command line's options, and shown to a caller in Python with arguments instead:
    "another --out" as "another out", and what `argument` made as `rounds=0`. Commands in backticks stay commands.
    """

    exit_code = 1

    def __str__(self) -> str:
        words = _ARGUMENT.sub(lambda found: found["python"], super().__str__()).split("`")
        return "`".join(text if i % 2 else _OPTION.sub(_keyword, text) for i, text in enumerate(words))

    def on_command_line(self) -> str:
        """The same, with arguments as the command line has them."""
        return _ARGUMENT.sub(lambda found: found["command_line"], super().__str__())


def _keyword(option: re.Match[str]) -> str:
    """What Python calls an option."""
    name = option[1].replace("-", "_")
    return f"{name[3:]}=False" if name.startswith("no_") else KEYWORDS.get(name, name)


def argument(name: str, value: object = None, *, flag: str | None = None) -> str:
    """Name an argument in the text of an error: `rounds=0` in Python, `--rounds 0` on the command line.

    Args:
        value: None names the argument alone.
        flag: of the command line, where it is not "--" and the name.
    """
    flag = flag or "--" + name.replace("_", "-")
    python, command_line = (name, flag) if value is None else (f"{name}={value!r}", f"{flag} {value}")
    return f"{_START}{python}{_OR}{command_line}{_END}"


KEYWORDS = {"for": "machine", "time": "time_s", "set": "settings", "overwrite": "overwrite=True", "runtime": "runtimes"}
_OPTION = re.compile(r"(?<![\w`-])--([a-z][a-z-]*)")
_START, _OR, _END = "\ue000", "\ue001", "\ue002"  # that no text has
_ARGUMENT = re.compile(f"{_START}(?P<python>[^{_OR}]*){_OR}(?P<command_line>[^{_END}]*){_END}")


class UsageError(SlimzooError, ValueError):
    exit_code = 2


class DataError(SlimzooError, ValueError):
    exit_code = 3


class GateError(SlimzooError):
    exit_code = 4


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal; the message says whether and how to go on."""

    def __init__(self, message: str, *, exit_code: int = 130) -> None:  # 128 + SIGINT
        super().__init__(message)
        self.exit_code = exit_code


def first_line(error: BaseException) -> str:
    """Take the first line of an error for the text of another; its kind, where it says nothing."""
    said = str(error.args[0]) if isinstance(error, SlimzooError) and error.args else str(error)
    return next(iter(said.strip().splitlines()), type(error).__name__)


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """ "did you mean 'a' or 'b'?" with the known names near to `name`, or `otherwise` where none is near."""
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else otherwise
