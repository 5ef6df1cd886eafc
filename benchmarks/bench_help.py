"""How long does `slimzoo --help` take, and does it stay clear of the heavy imports?

python benchmarks/bench_help.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from record import write_result

HEAVY = ("torch", "torchvision", "timm", "onnxruntime")
PROBE = f"""
import sys
from compress.__main__ import main
sys.argv = ["slimzoo", "--help"]
try:
    main()
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""


def main() -> int:
    seconds = []
    for _ in range(15):
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "compress", "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.monotonic() - began)
    heavy = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True).stderr.strip()
    figures = {
        "median_s": round(statistics.median(seconds), 3),
        "min_s": round(min(seconds), 3),
        "max_s": round(max(seconds), 3),
        "runs": len(seconds),
        "heavy_imports": heavy,
        "bar_s": 0.7,
    }
    print(figures)
    print(write_result("help", figures, "python benchmarks/bench_help.py"))
    return 0 if figures["median_s"] < 0.7 and heavy == "[]" else 4


if __name__ == "__main__":
    sys.exit(main())
