"""How the name of a class is written wherever names are compared."""

from __future__ import annotations

import unicodedata


def as_class_name(text: str) -> str:
    """Composed (Unicode NFC), since macOS hands out decomposed names of folders; bytes that are no text as escapes."""
    return unicodedata.normalize("NFC", text).encode("utf-8", "backslashreplace").decode()
