"""Write the figures of benchmarks/results/*.json into the README, between its <!-- NAME --> marks.

    python benchmarks/readme.py

So that no number stands in the README that no file carries.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from record import RESULTS, ROOT

from zoo.cards import brief, write_costs
from zoo.origins import Own, Upstream
from zoo.registry import list_models
from zoo.weights import WEIGHTS

Figures = dict[str, Any]


def demo(f: Figures) -> str:
    rows = ["| model | test top-1 | ONNX file | onnxruntime, batch 1 | speed-up |", "|---|---:|---:|---:|---:|"]
    for row in f["rows"]:
        if row["runtime"] != "onnxruntime":
            continue
        name = row["model"]
        low, high = row["ratio_ci"] or (1, 1)
        ratio = "1" if row["verdict"] == "reference" else f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
        rows.append(
            f"| `{name}` ({row['precision']}) | {f['test_top1_pct'][name]:.1f}% "
            f"| {f['onnx_bytes'][name] / 1e6:.2f} MB | {row['median_ms']:.2f} ms | {ratio} |"
        )
    low, high = f["drop_ci_points"]
    fast_low, fast_high = f["speedup_ci"]
    text = (
        f"`pruned-int8` against `finetuned`: {-f['drop_points']:+.1f} points of accuracy (paired 95% interval "
        f"{-high:+.1f} to {-low:+.1f}, {f['test_images']} test images), {f['macs_share']:.0%} of the MACs, "
        f"{f['bytes_share']:.1%} of the bytes, {f['speedup']:.2f} times as fast (95% interval {fast_low:.2f} to "
        f"{fast_high:.2f}, {f['threads']} threads; differences within {f['noise']['floor_pct']:.0f}% are noise there). "
        f"The whole command took {f['seconds'] / 60:.1f} minutes."
    )
    return "\n".join([*rows, "", text])


def emoji(f: Figures) -> str:
    lines = ["| method | test top-1 | 95% interval | time |", "|---|---:|---:|---:|"]
    for run in f["runs"]:
        low, high = run["top1_ci_pct"]
        interval = f"{low:.1f}% to {high:.1f}%"
        lines.append(f"| `{run['method']}` | {run['top1_pct']:.1f}% | {interval} | {run['seconds']:.0f} s |")
    return "\n".join(lines)


def never_lost(f: Figures) -> str:
    kills, points, disk, nans = f["kills"], f["kill_points"], f["full_disk"], f["nans"]
    lines = ["| what happens | how often | what is lost |", "|---|---:|---|"]
    lines.append(
        f"| SIGKILL at a random time | {kills['kills']} in {kills['runs']} runs "
        f"| nothing: {kills['identical']} of {kills['runs']} runs end with the bits of the run that was not killed |"
    )
    lines.append(
        f"| SIGKILL at each system call that writes a checkpoint | {points['kill_points']} "
        f"| at most the steps since the checkpoint before; {points['unreadable']} cannot be read |"
    )
    lines.append(
        f"| the disk is full at each write | {disk['writes']} "
        f"| the checkpoint before loads in {disk['loads']}, with one line of error in {disk['errors_of_one_line']} |"
    )
    lines.append(f"| NaN in the loss, a gradient or an activation | {nans['injected']} | {nans['saved']} are saved |")
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
    return (
        f"`slimzoo --help` takes {f['median_s']:.2f} s (median of {f['runs']}) and imports none of the heavy packages."
    )


def zoo(f: Figures) -> str:
    lines = ["| model | parameters | MACs | input | weights | differs from |", "|---|---:|---:|---|---|---|"]
    for c in map(brief, list_models()):
        row = f.get(c["name"], {})
        size = "x".join(map(str, c["input_size"]))
        apart = f"{row['peer']} by {row['distance']:.0g}" if "peer" in row else "-"
        weights = provenance(c["name"])
        lines.append(f"| `{c['name']}` | {c['params']:,} | {c['macs'] / 1e6:,.1f} M | {size} | {weights} | {apart} |")
    return "\n".join(lines)


def provenance(name: str) -> str:
    """Where a model's pretrained weights come from, in a few words."""
    record = WEIGHTS.get(name)
    if record is None:
        return "-"
    if isinstance(record.origin, Upstream):
        return record.origin.name.partition(":")[0]
    return "in the package" if isinstance(record.origin, Own) else "from PyPI, offline"


def speed(f: Figures) -> str:
    lines = ["| model | peer | forward | training step | peer against itself |", "|---|---|---:|---:|---:|"]
    for name, row in f["models"].items():
        ratios = [f"{r['ratio']:.2f} ({r['lo']:.2f} to {r['hi']:.2f})" for r in (row[k] for k in RACES)]
        lines.append(f"| `{name}` | {row['peer']} | {' | '.join(ratios)} |")
    return "\n".join(lines)


RACES = ("forward", "training", "copies")


def own_weights(f: Figures) -> str:
    lines = [
        "| model | data | test top-1, median of three seeds | lowest, highest | bytes |",
        "|---|---|---:|---:|---:|",
    ]
    for name, row in f.items():
        each = [run["test_top1_pct"] for run in row["runs"]]
        images = f"{row['data']}, {row['runs'][0]['n']} images"
        lines.append(
            f"| `{name}` | {images} | {row['median_top1_pct']:.1f}% | {min(each):.1f}%, {max(each):.1f}% "
            f"| {row['bytes']:,} |"
        )
    return "\n".join(lines)


SECTIONS: dict[str, Callable[[Figures], str]] = {
    "demo": demo, "emoji": emoji, "reload": reload, "help": help, "zoo": zoo, "zoo_speed": speed,
    "own_weights": own_weights, "never_lost": never_lost,
}  # fmt: skip


def main() -> int:
    write_costs()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, write in SECTIONS.items():
        figures = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["figures"]
        opening, closing = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        head, _, rest = text.partition(opening)
        _, found, tail = rest.partition(closing.lstrip("\n"))
        if not found:
            raise SystemExit(f"README.md has no {opening.strip()} ... {closing.strip()}")
        text = head + opening + write(figures) + closing + tail
    readme.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
