"""`slimzoo export --coded`: a model directory's weights, architecture, classes and Preprocess as one small file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from compress.deployment.codec.encoder import Encoder
from zoo import lineage
from zoo.create import create_model
from zoo.disk import json_bytes
from zoo.errors import SlimzooError, UsageError
from zoo.files.adopt import is_adopted
from zoo.files.codec.arithmetic import Coder
from zoo.files.codec.tensors import Words
from zoo.files.coded_file import Layout, assemble, code_tensor, decode, header_of, matrix_shape, words_of
from zoo.files.directory import check_addable
from zoo.files.elsewhere import is_timm_directory
from zoo.files.manifest import replace_files
from zoo.files.model_directory import CODED, CONFIG, LoadedModel, ModelConfig, load_model
from zoo.files.program import PROGRAM
from zoo.files.surgery import surgery_between
from zoo.pretrained.upstream import is_upstream
from zoo.progress import Progress

TRIED = 1 << 17  # weights of a tensor up to which every layout is tried, and the smallest taken


def encode(model: torch.nn.Module, config: ModelConfig, progress: Progress | None = None) -> bytes:
    """The coded file of a model; `zoo.files.coded_file.decode` gives it back bit for bit.

    Args:
        config: its surgery is found afresh, by comparing the model with its architecture.
    """
    header, tensors, encoder = _header(model, config), model.state_dict(), Encoder()
    for done, (name, tensor) in enumerate(tensors.items()):
        if progress is not None:
            progress("coding", done, len(tensors), name)
        words, bits, shape = words_of(tensor), 8 * tensor.element_size(), tuple(tensor.shape)
        code_tensor(encoder, shape, bits, words, _best_layout(shape, bits, words))
    return assemble(header, bytes(encoder.bulk), encoder.finish())


def check_codable(model: torch.nn.Module, config: ModelConfig) -> None:
    """Raise what `encode` would of such a model, whatever the values of its tensors."""
    _header(model, config)
    for tensor in model.state_dict().values():
        words_of(tensor.reshape(-1)[:1])


def _header(model: torch.nn.Module, config: ModelConfig) -> bytes:
    with torch.device("meta"):
        fresh = create_model(config.architecture, **config.model_args)
    config = replace(config, surgery=surgery_between(fresh, model))
    original = {name: tuple(tensor.shape) for name, tensor in fresh.state_dict().items()}
    changed = {name: tuple(t.shape) for name, t in model.state_dict().items() if tuple(t.shape) != original.get(name)}
    return header_of(config, changed)


def _best_layout(shape: tuple[int, ...], bits: int, words: Words) -> Layout:
    layouts = list(_layouts(shape))
    if len(words) > TRIED or len(layouts) == 1:
        return layouts[0]
    return min(layouts, key=lambda layout: _coded_bytes(shape, bits, words, layout))


def _layouts(shape: tuple[int, ...]) -> Iterator[Layout]:
    """The first is the likely one. A row of a Linear's weights may be a picture, or channels of small ones."""
    rows, columns = matrix_shape(shape)
    if len(shape) == 4:
        yield Layout(image=shape[3])
    elif rows > 1:
        side = round(columns**0.5)
        sides = [side] if side * side == columns else [w for w in range(2, 9) if columns % (w * w) == 0]
        yield from (Layout(image=side) for side in sides or [1])
    else:
        yield Layout()
    if rows > 1:
        yield Layout(transposed=True)


def _coded_bytes(shape: tuple[int, ...], bits: int, words: Words, layout: Layout) -> int:
    encoder = Encoder()
    coder: Coder = encoder
    code_tensor(coder, shape, bits, words, layout)
    return len(encoder.bulk) + len(encoder.finish())


def export_coded(directory: str | Path, *, progress: Progress | None = None) -> tuple[ModelConfig, dict[str, Any]]:
    """`export --coded`: add model.slim to a model directory and a record to its lineage, atomically.

    Returns:
        The directory's config and its last lineage record.

    Raises:
        UsageError: an upstream name, or an int8 directory.
        SlimzooError: the file does not decode to the same bits; nothing is written.
    """
    directory = Path(directory)
    if is_upstream(directory) or is_adopted(directory) or is_timm_directory(directory):
        raise UsageError(
            f"{directory} is no directory of slimzoo's to write into; `slimzoo export --out DIR` or `cluster` makes one"
        )
    began = time.monotonic()
    loaded = load_model(directory)
    check_addable(directory)
    if (directory / PROGRAM).is_file():
        raise UsageError(
            f"{directory} holds {loaded.config.architecture}, a module of your own, and a coded file names a network "
            "that slimzoo can build: `slimzoo export` writes it as ONNX"
        )
    content = encode(loaded.model, loaded.config, progress)
    check_decodes(content, loaded)
    size = sum(t.numel() * t.element_size() for t in loaded.model.state_dict().values())
    record = lineage.step(
        "export",
        {"directory": str(directory), "coded": True},
        seed=0,
        seconds=time.monotonic() - began,
        before={"size_bytes": size},
        after={"size_bytes": len(content)},
    )
    config = loaded.config.with_step(record)
    replace_files(directory, {CODED: content, CONFIG: json_bytes(config.to_json())})
    return config, record


def check_decodes(content: bytes, loaded: LoadedModel) -> None:
    """Refuse a coded file that is not, bit for bit, the model.

    Raises:
        SlimzooError: a tensor differs; it is named.
    """
    decoded = decode(content)
    wanted, found = loaded.model.state_dict(), decoded.model.state_dict()
    for name, tensor in wanted.items():
        if name not in found or (words_of(tensor) != words_of(found[name])).any():
            raise SlimzooError(f"the coded file does not give {name} back bit for bit; it was not written")
    if (decoded.config.classes, decoded.config.preprocess) != (loaded.config.classes, loaded.config.preprocess):
        raise SlimzooError("the coded file does not give classes and preprocessing back; it was not written")
