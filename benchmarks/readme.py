"""Write the figures of benchmarks/results/*.json into the README, between its <!-- NAME --> marks.

    python benchmarks/readme.py

So that no number stands in the README that no file carries.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

from record import RESULTS, ROOT

from zoo.cli import card
from zoo.registry import list_models

Figures = dict[str, Any]


def demo(f: Figures) -> str:
    rows = [
        "| model | test top-1 | ONNX file | onnxruntime, batch 1 | speed-up |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in f["rows"]:
        if row["runtime"] != "onnxruntime":
            continue
        name = row["model"]
        ratio = "1" if name == "finetuned" else f"{row['ratio']:.2f} ({row['ratio_ci'][0]:.2f} to {row['ratio_ci'][1]:.2f})"
        rows.append(
            f"| `{name}` ({row['precision']}) | {f['test_top1_pct'][name]:.1f}% | {f['onnx_bytes'][name] / 1e6:.2f} MB | "
            f"{row['median_ms']:.2f} ms | {ratio} |"
        )
    low, high = f["drop_ci_points"]
    return "\n".join(rows) + (
        f"\n\n`pruned-int8` against `finetuned`: {f['drop_points']:+.1f} points lost (paired 95% interval {low:+.1f} to "
        f"{high:+.1f}, {f['test_images']} test images), {f['macs_share']:.0%} of the MACs, {f['bytes_share']:.1%} of the "
        f"bytes, {f['speedup']:.2f} times as fast (95% interval {f['speedup_ci'][0]:.2f} to {f['speedup_ci'][1]:.2f}, "
        f"{f['threads']} threads; two copies of one model differed by up to {f['noise']['floor_pct']:.0f}%). "
        f"The whole command took {f['seconds'] / 60:.1f} minutes."
    )


def emoji(f: Figures) -> str:
    lines = ["| method | test top-1 | 95% interval | time |", "|---|---:|---:|---:|"]
    for run in f["runs"]:
        low, high = run["top1_ci_pct"]
        lines.append(f"| `{run['method']}` | {run['top1_pct']:.1f}% | {low:.1f}% to {high:.1f}% | {run['seconds']:.0f} s |")
    return "\n".join(lines)


def reload(f: Figures) -> str:
    lines = ["| model | MACs before | after | same bits in a fresh process |", "|---|---:|---:|---|"]
    for row in f["models"]:
        same = "yes" if row["equal_to_the_bit"] else "NO"
        lines.append(
            f"| `{row['model']}` | {row['macs_before'] / 1e9:.2f} G | {row['macs_after'] / 1e9:.2f} G | {same} |"
        )
    return "\n".join(lines)


def help(f: Figures) -> str:
    return f"`slimzoo --help` takes {f['median_s']:.2f} s (median of {f['runs']}) and imports none of the heavy packages."


def zoo(f: Figures) -> str:
    lines = ["| model | parameters | MACs | input | weights | distance to the reference |", "|---|---:|---:|---|---|---:|"]
    for name in list_models():
        c = card(name)
        size = "x".join(map(str, c["input_size"]))
        distance = f.get(name, {}).get("distance_float32")
        lines.append(
            f"| `{name}` | {c['params']:,} | {c['macs'] / 1e6:,.1f} M | {size} | {'offline' if c['pretrained'] else '-'} | "
            f"{'-' if distance is None else f'{distance:.1e}'} |"
        )
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[Figures], str]] = {
    "demo": demo, "emoji": emoji, "reload": reload, "help": help, "zoo": zoo,
}  # fmt: skip


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, write in SECTIONS.items():
        figures = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["figures"]
        mark = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        if not mark.search(text):
            raise SystemExit(f"README.md has no <!-- {name} --> ... <!-- /{name} -->")
        text = mark.sub(lambda m, body=write(figures): m[1] + body + m[2], text)
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
