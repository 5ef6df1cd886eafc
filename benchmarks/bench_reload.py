"""Does a pruned model, saved and loaded in a fresh process, give the same logits to the bit?

    python benchmarks/bench_reload.py

A zoo ResNet-18 and timm's DenseNet-121 at 224 px, pruned to half of their MACs; random weights, since what is tested is
that nothing is lost, with BatchNorm statistics shaken.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from record import write_result

from compress.pruning.structured import prune_channels
from zoo import create_model, save_model
from zoo.files.directory import new_directory
from zoo.files.model_directory import ModelConfig
from zoo.preprocess import Preprocess

FRESH = """
import sys, torch
from zoo import load_model
torch.set_num_threads(1)
with torch.no_grad():
    torch.save(load_model(sys.argv[1]).model(torch.load(sys.argv[2], weights_only=True)), sys.argv[3])
"""


def check(name: str, folder: Path) -> dict[str, object]:
    torch.manual_seed(0)
    model = create_model(name, num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    began = time.monotonic()
    pruned = prune_channels(model, (3, 224, 224), macs=0.5)
    seconds = time.monotonic() - began
    out = folder / name.replace(":", "-")
    config = ModelConfig(
        architecture=name, model_args={"num_classes": 10}, classes=None, preprocess=Preprocess(size=(224, 224))
    )
    with new_directory(out, run={"verb": "prune", "arguments": {}}) as work:
        config = save_model(work, pruned.model, config)
    images, answers = folder / "images.pt", folder / "answers.pt"
    torch.save(torch.randn(2, 3, 224, 224), images)
    subprocess.run([sys.executable, "-c", FRESH, str(out), str(images), str(answers)], check=True)
    with torch.no_grad():
        here = pruned.model(torch.load(images, weights_only=True))
    there = torch.load(answers, weights_only=True)
    return {
        "model": name,
        "macs_before": pruned.macs_before,
        "macs_after": pruned.macs_after,
        "set_attr_operations": len(config.surgery),
        "prune_seconds": round(seconds, 2),
        "equal_to_the_bit": bool(torch.equal(here, there)),
        "logits_std": float(here.std()),
    }


def main() -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [check(name, Path(folder)) for name in ("resnet18", "timm:densenet121")]
    for row in rows:
        print(row)
    print(write_result("reload", {"models": rows}, "python benchmarks/bench_reload.py"))
    return 0 if all(row["equal_to_the_bit"] for row in rows) else 4


if __name__ == "__main__":
    sys.exit(main())
