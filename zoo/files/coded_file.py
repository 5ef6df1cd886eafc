"""DIR/model.slim: weights, architecture, classes and Preprocess in one coded file.

    4 bytes   SLIM
    1 byte    format
    4 bytes   CRC-32 of everything behind it, little-endian
    1-9 bytes length of the header (7 bits a byte, low ones first)
    header    JSON, deflated with `DICTIONARY`: architecture, model_args, surgery, classes, preprocess, shapes
    1-9 bytes length of the bulk
    bulk      plain bytes and symbols of large tensors
    numbers   the tensors of the state dict, in its order, as tensors.py codes them: an arithmetic code

A file is checked before it is believed: its sum, the size of its header, and, on torch's meta device, the number of
weights that its architecture would take.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import SlimzooError, UsageError, first_line
from zoo.files.codec.arithmetic import Coder, Decoder, code_count, code_number
from zoo.files.codec.errors import CodedError
from zoo.files.codec.tensors import Words, code_words
from zoo.preprocess import Preprocess

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.files.model_directory import LoadedModel, ModelConfig

MAGIC = b"SLIM"
FORMAT = 2
SUFFIX = ".slim"
MOST_HEADER = 1 << 24  # bytes of JSON: a pruned model of 10,000 layers takes a tenth
MOST_WEIGHTS = 1 << 31
MOST_BYTES = 1 << 32
# what nearly every header says, so that it costs nothing to say; a part of the format, never to be changed
DICTIONARY = (
    b'"timm:torchvision:resnet18resnet20resnet50mobilenet_v2vit_tinyconvnext_tinyvggdensenet121"lenet_300_100"lenet5"'
    b'"attr","module":"layers.conv2","name":"out_channels","value":"in_channels","groups"'
    b'tf_efficientnet_lite0{"num_classes":1000,"width":1.0,"image_size":224,"dropout":0.0},"in_channels":3}'
    b'"mode":"crop","pad","resize_to":256,"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225],"size":[64,64],[224,224]'
    b'"bilinear","mean":[0.5],"std":[0.5],"mean":[0.1307],"std":[0.3081]'
    b'{"architecture":"lenet5_caffe","model_args":{"num_classes":10},"surgery":[{"op":"set_attr","module":"conv1",'
    b'"name":"out_channels","value":10},{"op":"set_attr","module":"conv2","name":"in_channels","value":10},'
    b'{"op":"set_attr","module":"fc1","name":"in_features","value":100},{"op":"set_attr","module":"fc1","name":'
    b'"out_features","value":100},{"op":"set_attr","module":"fc2","name":"in_features","value":100},'
    b'{"op":"set_attr","module":"fc2","name":"out_features","value":100},{"op":"set_attr","module":"fc3","name":'
    b'"in_features","value":100}],"classes":["0","1","2","3","4","5","6","7","8","9"],"preprocess":{"size":[28,28],'
    b'"resize_to":null,"mode":"squash","interpolation":"bicubic","antialias":true,"mean":[0.1307],"std":[0.3081],'
    b'"background":[255,255,255]},"shapes":{"conv1.weight":[10,1,5,5],"conv1.bias":[10],"conv2.weight":[10,10,5,5],'
    b'"conv2.bias":[10],"fc1.weight":[100,784],"fc1.bias":[100],"fc2.weight":[100,100],"fc2.bias":[100],'
    b'"fc3.weight":[10,100]}}'
)


@dataclass(frozen=True)
class Layout:
    """How one tensor lies in its matrix; the encoder's choice.

    Attributes:
        transposed: its columns are coded as rows.
        image: see `code_words`.
    """

    transposed: bool = False
    image: int = 1


def code_tensor(coder: Coder, shape: tuple[int, ...], bits: int, words: Words | None, layout: Layout) -> Words:
    """Code a tensor's bit patterns, flat, behind its layout."""
    transposed = bool(code_number(coder, 1, int(layout.transposed)))
    size = matrix_shape(shape)
    if transposed:
        size = size[::-1]
    image = 1 + code_count(coder, layout.image - 1, most=max(0, size[1] - 1))
    given = None
    if words is not None:
        given = words.reshape(matrix_shape(shape))
        given = given.T if transposed else given
    found = code_words(coder, size, bits, given, image=image)
    return (found.T if transposed else found).reshape(-1)


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns): the first dimension and the rest; one row for a vector."""
    return (1, math.prod(shape)) if len(shape) < 2 else (shape[0], math.prod(shape[1:]))


def words_of(tensor: Tensor) -> Words:
    """A tensor's bit patterns, flat."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(_integers(flat)).numpy().view(f"<u{flat.element_size()}").astype(np.uint64)


def tensor_of(words: Words, like: Tensor) -> Tensor:
    """The tensor of these bit patterns, of the type and shape of another one (which may be on the meta device)."""
    import torch

    size = like.element_size()
    patterns = np.ascontiguousarray(words.astype(f"<u{size}")).view(f"<i{size}" if size > 1 else "u1")
    return torch.from_numpy(patterns).view(like.dtype).reshape(like.shape)


def _integers(tensor: Tensor) -> Any:
    import torch

    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]


def header_of(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Deflated JSON. `shapes` are of the tensors that surgery has changed."""
    document = {
        "architecture": config.architecture,
        "model_args": config.model_args,
        "surgery": config.surgery,
        "classes": None if config.classes is None else list(config.classes),
        "preprocess": config.preprocess.to_dict(),
        "shapes": {name: list(shape) for name, shape in shapes.items()},
    }
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return deflate.compress(text) + deflate.flush()


def assemble(header: bytes, bulk: bytes, numbers: bytes) -> bytes:
    """The file, of its deflated header and its coded tensors."""
    body = _length(len(header)) + header + _length(len(bulk)) + bulk + numbers
    return MAGIC + bytes([FORMAT]) + zlib.crc32(body).to_bytes(4, "little") + body


def load_coded(path: str | Path) -> LoadedModel:
    """Load a coded file. Eval mode, CPU; its config has no lineage, which stays with the directory.

    Raises:
        UsageError: no such file.
        SlimzooError: it is damaged, cut off, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path} does not exist; `slimzoo export DIR --coded` writes DIR/model.slim")
    if path.stat().st_size > MOST_BYTES:
        raise SlimzooError(f"{path} is larger than {MOST_BYTES:,} bytes: it is not a coded file")
    try:
        return decode(path.read_bytes())
    except CodedError as error:
        raise SlimzooError(f"{path}: {error}; make it again with `slimzoo export DIR --coded`") from error


def decode(content: bytes) -> LoadedModel:
    """The model in the bytes of a coded file.

    Raises:
        CodedError: damaged, cut off, or of a newer format.
    """
    from zoo.files.model_directory import LoadedModel
    from zoo.tensors import load_tensors_

    header, bulk, numbers = _parts(content)
    config, shapes = _read_header(header)
    planned = _planned(config, shapes)
    decoder = Decoder(numbers, bulk)
    tensors = {}
    for name, like in planned.items():
        bits = 8 * like.element_size()
        tensors[name] = tensor_of(code_tensor(decoder, tuple(like.shape), bits, None, Layout()), like)
    model = _built(config, shapes, meta=False)
    load_tensors_(model, tensors)
    return LoadedModel(model.eval(), config)


def _parts(content: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, bulk and numbers of a file whose check sum is right."""
    if content[:4] != MAGIC:
        raise CodedError("not a coded file: it does not begin with SLIM")
    if len(content) < 10:
        raise CodedError(f"cut off after {len(content)} bytes")
    if content[4] != FORMAT:
        raise CodedError(f"of format {content[4]}, this version reads {FORMAT}")
    if zlib.crc32(content[9:]) != int.from_bytes(content[5:9], "little"):
        raise CodedError("damaged or cut off: its check sum does not match")
    header, rest = _sized(content[9:])
    bulk, numbers = _sized(rest)
    return header, bulk, numbers


def _sized(content: bytes) -> tuple[bytes, bytes]:
    """A part behind its length, and what follows it."""
    length = 0
    for at, byte in enumerate(content[:9]):
        length |= (byte & 127) << (7 * at)
        if byte < 128:
            part = content[at + 1 : at + 1 + length]
            if len(part) < length:
                raise CodedError(f"a part of it should have {length} bytes and has {len(part)}")
            return part, content[at + 1 + length :]
    raise CodedError("a part of it has no length")


def _length(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _read_header(header: bytes) -> tuple[ModelConfig, dict[str, tuple[int, ...]]]:
    from zoo.files.model_directory import ModelConfig

    try:
        inflate = zlib.decompressobj(-15, DICTIONARY)
        text = inflate.decompress(header, MOST_HEADER)
        if not inflate.eof:
            raise CodedError("its header does not end")
        document = json.loads(text)
        classes = document["classes"]
        config = ModelConfig(
            architecture=document["architecture"],
            model_args=document["model_args"],
            classes=None if classes is None else tuple(classes),
            preprocess=Preprocess.from_dict(document["preprocess"]),
            surgery=document["surgery"],
        )
        shapes = {name: tuple(int(side) for side in shape) for name, shape in document["shapes"].items()}
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CodedError(f"its header cannot be read ({error})") from error
    if any(side < 0 for shape in shapes.values() for side in shape):
        raise CodedError("its header names a negative size")
    return config, shapes


def _planned(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The state dict that the header describes, without memory behind it.

    Raises:
        CodedError: it cannot be built, or is larger than any that is written.
    """
    asked = sum(math.prod(shape) for shape in shapes.values())
    if asked > MOST_WEIGHTS:
        raise CodedError(f"its header asks for {asked:,} weights")
    try:
        planned = dict(_built(config, shapes, meta=True).state_dict())
    except (SlimzooError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CodedError(f"its architecture cannot be built ({first_line(error)})") from error
    total = sum(tensor.numel() for tensor in planned.values())
    if total > MOST_WEIGHTS:
        raise CodedError(f"its architecture has {total:,} weights")
    return planned


def _built(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], *, meta: bool) -> nn.Module:
    import torch

    from zoo.create import create_model
    from zoo.files.surgery import apply_surgery_

    with torch.device("meta" if meta else "cpu"):
        model = create_model(config.architecture, **config.model_args)
        apply_surgery_(model, config.surgery, {name: torch.Size(shape) for name, shape in shapes.items()})
    return model
