"""How people name data on the command line: the help that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

LayoutName = Literal["auto", "parts", "classes"]
DATA_HELP = (
    "Image folder (class/*.png, or train/ val/ test/ of those), CSV or Parquet with path,label[,split], .npz with "
    "images and labels, 'digits', or 'torchvision:NAME'."
)
VAL_HELP = "Share for validation (0.2), or a folder; by default 0.2, which up to 1,000 images train on in the end."
TEST_HELP = "Share for the final test (0.2, or 20%), or a folder of its own; by default none."
LAYOUT_HELP = "What the folders of DATA are: parts (train, val, test), classes; auto finds out."
DataArgument = Annotated[str, typer.Argument(metavar="DATA", help=DATA_HELP)]
Layout = Annotated[str, typer.Option(help=LAYOUT_HELP)]
