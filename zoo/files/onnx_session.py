"""open_session: a network in onnxruntime, or one line that says what it lacks and which runtimes may have it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from zoo.errors import SlimzooError

ONNX_RUNTIMES = ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "openvino")  # that `slimzoo bench` knows
CPU = "CPUExecutionProvider"
# how onnxruntime says that it does not know an operator, or not of these types, and how OpenVINO does
LACKING = (
    r"Fatal error: (\S+)\(-?\d+\) is not a registered function/op",
    r"Could not find an implementation for (\S+)\(\d+\) node",
    r"Type Error: Type '.*' of input parameter \(.*\) of operator \((\S+)\) in node .* is invalid",
    r"No Op registered for (\S+) with domain_version",
    r"No conversion rule found for operations: (.+)",
)


def open_session(
    content: bytes | str,
    options: Any,
    *,
    what: str | Path = "the network",
    runtime: str = "onnxruntime",
    provider: str = CPU,
) -> Any:
    """An onnxruntime.InferenceSession.

    Args:
        content: of an ONNX file, or its path.
        options: onnxruntime.SessionOptions.
        what: is opened, as an error calls it.

    Raises:
        SlimzooError: the runtime does not open it; where it lacks operators, which, and what else to try.
    """
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(content, options, providers=[provider])
    except Exception as error:  # onnxruntime raises its own unnamed kinds
        raise refusal(error, runtime, what) from error


def refusal(error: Exception, runtime: str, what: str | Path = "the network") -> SlimzooError:
    """One line for what a runtime said when it was to open `what`."""
    said = str(error)
    if lacking := next((found[1].strip() for each in LACKING if (found := re.search(each, said))), None):
        others = [name for name in ONNX_RUNTIMES if name != runtime]
        return SlimzooError(
            f"{what} needs {lacking}, which {runtime} lacks, or not for these types; another runtime may have it: "
            f"`slimzoo bench --runtime`, with {', '.join(others[:-1])} or {others[-1]}"
        )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from ", "Check "))]  # OpenVINO's own places
    return SlimzooError(f"{what} cannot be opened by {runtime}: {(telling or lines or [type(error).__name__])[0]}")
