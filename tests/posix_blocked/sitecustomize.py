"""What only POSIX has, taken from this Python and those that it starts: Windows has none of these modules.

With this folder on PYTHONPATH any command runs like that; `SLIMZOO_TEST_BLOCK=1 pytest` runs the suite so.
"""

import contextlib
import sys

with contextlib.suppress(ImportError):
    import psutil  # noqa: F401  # which asks each system in its own way

BLOCKED = ("fcntl", "resource", "termios", "pwd", "grp")
sys.modules.update(dict.fromkeys(BLOCKED))
