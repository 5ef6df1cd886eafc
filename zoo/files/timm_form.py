"""What timm is told in config.json, so that `timm.create_model("local-dir:DIR", pretrained=True)` opens a directory of
ours with the same answers; and where it cannot, an architecture's name that says why.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from zoo.models.registry import is_users
from zoo.pretrained import upstream, upstream_timm

# Of the zoo and of torchvision: the same tensors under the same names compute the same as timm's of that name do
# (tests/zoo/files/test_timm_form.py loads each into both).
SAME = ("convnext", "densenet", "efficientnet", "resnet", "resnext", "tf_efficientnet_lite", "wide_resnet")
SAME_OF_TORCHVISION = ("densenet", "resnet", "resnext", "wide_resnet")
KNOWN_AS = {"vit": "{}_patch16_224", "deit": "{}_patch16_224", "mobilenet_v1": "mobilenetv1_100"}
ABSENT = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "vit_pico")  # of those families
ANOTHER = ("convnext", "efficientnet", "inception", "vgg")  # timm has the name, and gives the layers other ones
ARGUMENTS = {"num_classes": "num_classes", "in_channels": "in_chans", "image_size": "img_size"}
OF_TRAINING = ("dropout", "drop_path", "init", "pretrained")  # which no answer depends on
OF_WEIGHTS = ("first_conv", "classifier", "fixed_input_size", "pool_size")  # what timm's record says of the network
ELSEWISE = "open it with zoo.load_model of slimzoo"


def timm_form(
    architecture: str, model_args: Mapping[str, Any], *, cut: bool, primary: str
) -> tuple[str, dict[str, Any], str | None]:
    """(architecture, model_args, why) as timm reads them; `why` is None where it opens the model.

    Args:
        cut: whether layers have other widths than the architecture's.
        primary: the file that is the model.
    """
    plain = upstream.known_as(architecture).partition(".")[0] if upstream.is_upstream(architecture) else architecture
    name = _name(architecture, plain)
    strange = [key for key in model_args if key not in OF_TRAINING and model_args[key] is not None]
    strange = [] if architecture.startswith("timm:") else [key for key in strange if key not in ARGUMENTS]
    if "taps" in model_args:
        why: str | None = (
            "with a classifier that sees several depths, which none of timm's has: `slimzoo fit --no-taps` makes one "
            "that timm opens"
        )
    elif primary.endswith(".onnx"):
        why = f"of which {primary} alone is here"
    elif cut:
        why = "cut by slimzoo: its layers are narrower than timm builds them"
    elif strange and name is not None:
        why = f"built with {', '.join(strange)}, which timm has no argument for"
    elif name is None:
        library = "torchvision" if upstream.is_upstream(architecture) else "slimzoo"
        why = f"of {library}, which timm does not have, or with other names for its layers"
    else:
        why = None
    if why is None:
        assert name is not None
        return (
            name,
            {ARGUMENTS.get(key, key): value for key, value in model_args.items() if key not in OF_TRAINING},
            None,
        )
    told = "taps" in model_args or cut or primary.endswith(".onnx") or (strange and name) or plain.startswith(ANOTHER)
    return f"{plain} ({why}; {ELSEWISE})" if told else plain, dict(model_args), why


def _name(architecture: str, plain: str) -> str | None:
    """timm's name of an architecture; None where it has no such network."""
    if architecture.startswith("timm:"):
        return plain
    if upstream.is_upstream(architecture):
        return plain if plain.startswith(SAME_OF_TORCHVISION) else None
    if plain in ABSENT or is_users(plain):
        return None
    for family, known in KNOWN_AS.items():
        if plain.startswith(family):
            return known.format(plain)
    return plain if plain.startswith(SAME) else None


def record_of_network(architecture: str) -> dict[str, Any]:
    """What timm's own record says of the network of "timm:NAME", for the record in config.json."""
    if not architecture.startswith("timm:") or "timm" not in sys.modules:  # it built the model, if there is one
        return {}
    cfg = upstream_timm.default_record(upstream.known_as(architecture))
    return {key: cfg[key] for key in OF_WEIGHTS if cfg.get(key) is not None}
