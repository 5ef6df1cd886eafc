"""The model card: README.md of a model directory, with the metadata that the Hugging Face Hub reads; from its config.

Metadata: https://huggingface.co/docs/hub/model-cards, results as of Papers with Code's model-index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from zoo.lineage import current_metrics
from zoo.pretrained.upstream import is_upstream, upstream_weights
from zoo.pretrained.weights import WEIGHTS

CARD = "README.md"
PARTS = {"test": "test", "val": "validation"}
HUB_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-nc-4.0", "cc-by-4.0")  # some of the identifiers of the hub


def model_card(document: Mapping[str, Any]) -> str:
    """The card of a config.json. It names data by their folder alone, and nothing of the machine that made it."""
    ours = document["slimzoo"]
    lineage, name = ours["lineage"], str(document["architecture"])
    title = "-".join([name.rpartition(":")[2], *(verb for verb in _verbs(lineage) if verb != "export")])
    said, results = licence(name, lineage), list(_results(title, lineage))
    licensed = (said or "").lower() in HUB_LICENCES
    metadata = {
        "license": said.lower() if said and licensed else "other" if said else None,
        "license_name": None if licensed else said,
        "library_name": "slimzoo",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", *(["onnx"] if ours["primary"].endswith(".onnx") else [])],
        "base_model": f"timm/{name.removeprefix('timm:')}" if name.startswith("timm:") else None,
        "datasets": list(dict.fromkeys(filter(None, map(_data, lineage)))) or None,
        "metrics": ["accuracy"] if results else None,
        "model-index": [{"name": title, "results": results}] if results else None,
    }
    head = yaml.safe_dump({k: v for k, v in metadata.items() if v is not None}, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n".join(_text(title, document, said)) + "\n"


def licence(architecture: str, lineage: Sequence[Mapping[str, Any]]) -> str | None:
    """Name the licence of the weights that a model was fitted from; None where it began with random ones.

    Of a model that was a file of ours, what the file said.
    """
    if of := next((step["of"] for step in lineage if step.get("of")), None):
        return None if of["licence"] is None else str(of["licence"])
    if any(step.get("verb") == "fit" and step.get("method") == "scratch" for step in lineage):
        return None
    record = upstream_weights(architecture) if is_upstream(architecture) else WEIGHTS.get(architecture)
    return record.licence if record else None


def _verbs(lineage: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(step["verb"]) for step in lineage if "verb" in step]


def _data(step: Mapping[str, Any]) -> str | None:
    name = (step.get("data") or {}).get("name")
    return None if name is None else PurePath(str(name)).name


def _results(title: str, lineage: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """For the hub, one for each part that the model was measured on as it is now."""
    data = next(filter(None, (_data(step) for step in reversed(lineage))), "images")
    for part, split in PARTS.items():
        found = current_metrics(lineage).get(part)
        if found and found.get("top1") is not None:
            yield {
                "task": {"type": "image-classification"},
                "dataset": {"name": data, "type": "imagefolder", "split": split},
                "metrics": [{"type": "accuracy", "name": "accuracy", "value": round(found["top1"], 4)}],
            }


def _text(title: str, document: Mapping[str, Any], said: str | None) -> Iterator[str]:
    ours, classes = document["slimzoo"], document.get("label_names")
    metrics = current_metrics(ours["lineage"])
    yield f"# {title}"
    yield ""
    size = ours["preprocess"].get("size")
    shown = "" if not size else f" of {size[0]} x {size[1]} pixels"
    yield f"`{document['architecture']}`{shown}, {len(classes) if classes else 'unnamed'} classes."
    if classes:
        yield ""
        yield "Classes: " + ", ".join(f"`{_plain(name)}`" for name in classes) + "."
    yield ""
    yield "| | |"
    yield "|---|---|"
    for part, on in {**PARTS, "expected": "new images, as cross-validation expects it"}.items():
        if (found := metrics.get(part)) and found.get("top1") is not None:
            lo, hi = found.get("top1_ci") or (None, None)
            between = "" if lo is None else f" (95% interval {lo:.1%} to {hi:.1%})"
            yield f"| top-1 on {on}, {found.get('n')} images | {found['top1']:.1%}{between} |"
    for key, unit, scale in (("params", "M", 1e6), ("macs", "G", 1e9), ("size_bytes", "MB", 1e6)):
        if metrics.get(key):
            words = {"params": "parameters", "macs": "MACs", "size_bytes": "file"}
            yield f"| {words[key]} | {metrics[key] / scale:.3g} {unit} |"
    yield f"| licence of the weights that it began with | {said or 'none: it began with random ones'} |"
    yield ""
    if verbs := _verbs(ours["lineage"]):
        yield "Made by: " + ", then ".join(f"`{verb}`" for verb in verbs) + "."


def _plain(name: str) -> str:
    return " ".join(name.replace("`", "'").replace("|", "/").split())
