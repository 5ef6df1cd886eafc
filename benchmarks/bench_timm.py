"""The whole way, for the smallest model of each of timm's families and for torchvision's classifiers.

    python benchmarks/bench_timm.py [--jobs 2] [--limit 900] [NAME ...]
    python benchmarks/bench_timm.py --write

From random weights, each at its own size, in a process of its own: fit one step, load in a fresh process to the same
bits, prune to 70% of the MACs, the cut network equals the masked one, export, ONNX agrees, int8. What a stage says is
kept word for word; after a refusal the stages that still can be tried go on, on the network as it was. Rows stay in
results/timm.runs.json, so that a run which was stopped goes on; `--write` makes results/timm.json of them. A family is
a file of timm's; its test networks and what has no classifier are left out.
"""

from __future__ import annotations

import argparse
import copy
import json
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from record import Rows, write_result

from zoo.errors import SlimzooError, first_line

SHARE = 0.7
CLASSES, IMAGES = 2, 2  # images a class and part: one step, and images to measure and calibrate on
CLOSE = 1e-5  # of the logits' standard deviation, in float64: the cut network's answers from the masked one's
STAGES = ("fit", "reload", "prune", "mask", "export", "int8")
FRESH = """
import sys, numpy as np, torch
from zoo import load_model
torch.set_num_threads(1)
with torch.no_grad():
    np.save(sys.argv[3], load_model(sys.argv[1]).model(torch.from_numpy(np.load(sys.argv[2]))).numpy())
"""


def families() -> dict[str, str]:
    """Of each of timm's model files, the network with fewest parameters, the smallest of all first; built empty."""
    import timm
    import torch

    smallest = {}
    for module in timm.list_modules():
        sizes = {}
        for name in timm.list_models(module=module):
            if name.startswith("test_"):
                continue
            with torch.device("meta"):
                try:
                    model = timm.create_model(name)
                except Exception:  # what needs numbers while it is built; its smaller siblings mostly do not
                    continue
            if getattr(model, "num_classes", 0) and model.pretrained_cfg.get("num_classes"):
                sizes[name] = sum(p.numel() for p in model.parameters())
        if sizes:
            smallest[module] = min((size, name) for name, size in sizes.items())
    return {module: f"timm:{name}" for module, (_, name) in sorted(smallest.items(), key=lambda item: item[1])}


def torchvision_names() -> list[str]:
    """torchvision's classifiers in float, those with fewest parameters first."""
    from torchvision import models

    names = models.list_models(module=models)
    size = {name: models.get_model_weights(name).DEFAULT.meta["num_params"] for name in names}
    return [f"torchvision:{name}" for name in sorted(names, key=lambda name: (size[name], name))]


def pictures(folder: Path, side: int) -> Path:
    """Noise around a colour for each class, in train/ and val/."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for number in range(CLASSES):
            place = folder / part / f"class-{number}"
            place.mkdir(parents=True)
            for image in range(IMAGES):
                noise = rng.integers(0, 128, (side, side, 3)) + np.array([127, 0, 60]) * (number + 1) // 2
                Image.fromarray(noise.astype(np.uint8)).save(place / f"{image}.png")
    return folder


class Stages:
    """What each stage did: {"ok", "seconds"}, and "said" where it refused or failed."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        began, notes = time.monotonic(), {}
        try:
            yield notes
            self.found[name] = {"ok": True, **notes}
        except SlimzooError as error:
            self.found[name] = {"ok": False, "refused": True, "said": str(error), **notes}
        except Exception as error:  # a crash is what is looked for
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {first_line(error)} ({Path(where.filename).name}:{where.lineno})"
            self.found[name] = {"ok": False, "refused": False, "said": said, **notes}
        self.found[name]["seconds"] = round(time.monotonic() - began, 1)

    def ok(self, name: str) -> bool:
        return bool(self.found.get(name, {}).get("ok"))


def one(name: str, folder: Path) -> dict[str, Any]:
    """All stages of one model."""
    import torch

    from compress import export, prune, quantize
    from compress.dependency.mask import mask_
    from transfer import fit
    from zoo import load_model
    from zoo.create import create_model
    from zoo.pretrained import upstream

    torch.set_num_threads(1)
    with torch.device("meta"):
        side = upstream.input_size_of(create_model(name))[1]
    data = pictures(folder / "data", side)
    stages, fitted, cut, int8 = Stages(), folder / "fitted", folder / "cut", folder / "int8"
    row: dict[str, Any] = {"model": name, "side": side}
    with stages.stage("fit"):
        fit(data, model=name, method="scratch", out=fitted, size=side, epochs=1, batch=CLASSES * IMAGES)
    if not stages.ok("fit"):
        if not stages.found["fit"]["refused"]:
            return row | {"stages": stages.found}
        _save_untrained(name, side, fitted)
    loaded = load_model(fitted)
    x = torch.randn(2, *loaded.config.input_size, generator=torch.Generator().manual_seed(0))
    with stages.stage("reload"):
        np.save(folder / "x.npy", x.numpy())
        subprocess.run(
            [sys.executable, "-c", FRESH, str(fitted), str(folder / "x.npy"), str(folder / "logits.npy")], check=True
        )
        with torch.no_grad():
            here = loaded.model(x).numpy()
        if not np.array_equal(here, np.load(folder / "logits.npy")):
            raise AssertionError(f"other bits, by up to {np.abs(here - np.load(folder / 'logits.npy')).max():.2g}")
    pruned = None
    with stages.stage("prune") as notes:
        step = prune(fitted, out=cut, macs=SHARE, recover=0)
        pruned = step.pruned
        notes |= {"macs": pruned.macs_after / pruned.macs_before, "groups": len(pruned.cuts), "whole": pruned.whole}
    if pruned is not None:
        with stages.stage("mask") as notes:
            masked = copy.deepcopy(loaded.model).double()
            mask_(masked, [each.group for each in pruned.cuts], [each.keep for each in pruned.cuts])
            smaller = load_model(cut).model.double()
            with torch.no_grad():
                wanted, got = masked(x.double()), smaller(x.double())
            notes["differs"] = float((wanted - got).abs().max() / wanted.std().clamp(min=1e-30))
            if not notes["differs"] <= CLOSE:
                raise AssertionError(f"the cut network differs from the masked one by {notes['differs']:.2g}")
    last = fitted if pruned is None else cut
    with stages.stage("export") as notes:
        notes["differs"] = export(last).record["parity"]["max_abs"]
    if stages.ok("export"):
        with stages.stage("int8") as notes:
            record = quantize(last, data=data, out=int8).record
            notes |= {"layers": record["int8_layers"], "nats": min(record["divergence"].values())}
    return row | {"stages": stages.found}


def _save_untrained(name: str, side: int, out: Path) -> None:
    """The network as it is built, for the stages that need no training."""
    from zoo import save_model
    from zoo.create import create_model
    from zoo.files.directory import new_directory
    from zoo.files.model_directory import ModelConfig
    from zoo.preprocess import Preprocess

    names = tuple(f"class-{number}" for number in range(CLASSES))
    config = ModelConfig(
        architecture=name, model_args={"num_classes": CLASSES}, classes=names, preprocess=Preprocess(size=(side, side))
    )
    with new_directory(out, run={"verb": "fit", "arguments": {}}) as work:
        save_model(work, create_model(name, num_classes=CLASSES).eval(), config)


def in_a_process(name: str, limit_s: float) -> dict[str, Any]:
    """`one` in a process of its own; a crash of the interpreter and a run out of time are rows too."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--one", name, "--folder", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return {"model": name, "stages": {}, "reason": f"not measured: took more than {limit_s:.0f} s"}
        if done.returncode == -signal.SIGKILL:
            has = psutil.virtual_memory().total / 1e9
            return {
                "model": name,
                "stages": {},
                "reason": f"not measured: killed, its {has:.0f} GB being too few for it",
            }
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            return {"model": name, "stages": {}, "reason": f"exit code {done.returncode}: {last}"}
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def measure(names: dict[str, str], rows: Rows, jobs: int, limit_s: float) -> None:
    """Rows of the models that have none yet."""
    missing = [name for name in names if rows.find(model=name) is None]

    def row(name: str) -> dict[str, Any]:
        return {"family": names[name], **in_a_process(name, limit_s)}

    with ThreadPoolExecutor(jobs) as pool:
        for number, done in enumerate(as_completed([pool.submit(row, name) for name in missing]), start=1):
            rows.keep(found := done.result())
            print(f"{number}/{len(missing)}", describe(found), flush=True)


def describe(row: dict[str, Any]) -> str:
    said = [
        f"{stage} {'ok' if found['ok'] else 'REFUSED' if found['refused'] else 'FAILED'} {found['seconds']:.0f} s"
        + ("" if found["ok"] else f" ({found['said']})")
        for stage, found in row["stages"].items()
    ]
    return f"{row['model']}: {row.get('reason', '')}{', '.join(said)}"


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts, and all rows: how many models of each source, and how many pass each stage."""

    def counted(holds: Callable[[dict[str, Any]], bool], some: list[dict[str, Any]]) -> int:
        return sum(map(holds, some))

    found: dict[str, Any] = {}
    for source in ("timm", "torchvision"):
        some = [row for row in rows if row["model"].startswith(f"{source}:")]
        found[source] = {
            "models": len(some),
            "not_measured": counted(lambda row: "reason" in row, some),
            "crashed": counted(lambda r: any(not s["ok"] and not s["refused"] for s in r["stages"].values()), some),
            "cut": counted(lambda r: r["stages"].get("prune", {}).get("macs", 1) <= SHARE, some),
            **{stage: counted(lambda r, s=stage: r["stages"].get(s, {}).get("ok", False), some) for stage in STAGES},  # type: ignore[misc]
        }
    return {"share": SHARE, "sources": found, "rows": sorted(rows, key=lambda row: row["model"])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="by default all of timm's families and all names of torchvision's")
    parser.add_argument("--jobs", type=int, default=1, help="models at a time, one thread each")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds a model")
    parser.add_argument("--write", action="store_true", help="only write the result")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.folder)))
        return 0
    rows = Rows("timm")
    if given.names:
        wanted = {name: "" for name in given.names}
    elif not given.write:
        wanted = {name: family for family, name in families().items()}
        wanted |= {name: "torchvision" for name in torchvision_names()}
    if not given.write:
        measure(wanted, rows, given.jobs, given.limit)
    found = figures(rows.all)
    for source, counts in found["sources"].items():
        print(source, counts)
    print(write_result("timm", found, "python benchmarks/bench_timm.py"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
