"""Two processes on gloo against one, against a second run of two, and with one of them killed.

    python benchmarks/bench_distributed.py

Tiny models on random images, batches of 6 and 5 cut into unequal parts; what runs in each process is
tests/transfer/training/several_processes.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import ROOT, write_result

SCRIPT = ROOT / "tests/transfer/training/several_processes.py"
LARGEST_DIFFERENCE, LONGEST_S = 1e-5, 30.0


def launch(scenario: str, place: Path) -> tuple[list[Any], int]:
    """What two processes left behind, and the job's exit code."""
    place.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    code = subprocess.run([*command, scenario, str(place)], env=environment, capture_output=True).returncode
    return [json.loads(path.read_text()) for path in sorted(place.glob("process-*.json"))], code


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest of all weights."""
    pairs = (
        (a, b) for name, values in one["weights"].items() for a, b in zip(values, other["weights"][name], strict=True)
    )
    return max(abs(a - b) for a, b in pairs)


def main() -> int:
    sys.path.insert(0, str(SCRIPT.parent))
    import several_processes as cases
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        two, code = launch("trains", Path(scratch, "first"))
        again, code_again = launch("trains", Path(scratch, "second"))
        if code or code_again:
            raise RuntimeError("two processes did not train")
        apart = {name: difference(cases.numbers(cases.train(case)), two[0][name]) for name, case in cases.PLAIN.items()}
        dying = Path(scratch, "dying")
        _, killed_code = launch("dies", dying)
        seconds = time.time() - (dying / "died").stat().st_mtime
        resumed, resumed_code = launch("dies", dying)
        figures = {
            "largest_difference_to_one_process": apart,
            "second_run_has_the_same_bits": two == again,
            "processes_have_the_same_bits": two[0] == two[1],
            "killed": {
                "exit_code": killed_code,
                "seconds_until_the_job_ended": round(seconds, 1),
                "resumed_exit_code": resumed_code,
                "resumed_has_the_bits_of_the_unkilled": resumed[0]["weights"] == two[0]["moving statistics"]["weights"],
            },
        }
    print(json.dumps(figures, indent=1))
    print(write_result("distributed", figures, "python benchmarks/bench_distributed.py"))
    good = figures["second_run_has_the_same_bits"] and figures["processes_have_the_same_bits"]
    good = good and figures["killed"]["resumed_has_the_bits_of_the_unkilled"]  # type: ignore[index]
    return 0 if good and max(apart.values()) <= LARGEST_DIFFERENCE and killed_code and seconds < LONGEST_S else 4


if __name__ == "__main__":
    sys.exit(main())
