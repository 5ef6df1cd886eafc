"""The coded file: every tensor back to the bit, and one clear line for whatever is not such a file."""

import json
import tracemalloc
import zlib

import numpy as np
import pytest
import torch

from compress.clustering.shared import detach_codes_, share_, shareable
from compress.deployment.coded import check_decodes, encode
from zoo.create import create_model
from zoo.errors import SlimzooError, UsageError
from zoo.files.codec.errors import CodedError
from zoo.files.coded_file import DICTIONARY, _parts, assemble, decode, header_of, load_coded, tensor_of, words_of
from zoo.files.model_directory import LoadedModel, ModelConfig
from zoo.files.predictor import open_predictor
from zoo.preprocess import Preprocess

CLASSES = tuple("0123456789")
PREPROCESS = Preprocess(size=(28, 28), mean=(0.1307,), std=(0.3081,))


def config_of(architecture, **arguments):
    return ModelConfig(architecture=architecture, model_args=arguments, classes=CLASSES, preprocess=PREPROCESS)


def small(seed=0, values=4):
    """A LeNet of which a tenth of the weights live, four values a layer."""
    torch.manual_seed(seed)
    config = config_of("lenet_300_100", num_classes=10, width=0.05)
    model = create_model(config.architecture, **config.model_args).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.rand_like(parameter) < 0.1)
    share_(model, dict.fromkeys(shareable(model), values))
    detach_codes_(model, mantissa=6)
    return LoadedModel(model, config)


@pytest.fixture(scope="module")
def loaded():
    return small()


@pytest.fixture(scope="module")
def content(loaded):
    return encode(loaded.model, loaded.config)


def test_every_bit_comes_back(loaded, content):
    decoded = decode(content)
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(decoded.model.state_dict()[name].view(torch.int32), tensor.view(torch.int32)), name
    assert decoded.config == loaded.config
    assert not decoded.model.training
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decoded.model(images), loaded.model(images))
    check_decodes(content, loaded)


def test_it_is_small(loaded, content):
    alive = sum(int((p != 0).sum()) for p in loaded.model.parameters())
    assert len(content) < 1.1 * alive + 120  # unstructured at a density of 0.1: 0.47 bits a place, 2 a value
    assert len(header_of(loaded.config, {})) < 60


def test_cut_channels_norms_counters_and_half_precision():
    """What surgery changed is in the header; BatchNorm's statistics and integers are coded as they are."""
    from compress.pruning.structured import prune_channels

    torch.manual_seed(0)
    config = ModelConfig(
        architecture="resnet20",
        model_args={"num_classes": 3, "stages": [1, 1], "width": 16},
        classes=("é", "ß", '"'),
        preprocess=Preprocess(size=(32, 32), mode="pad", background=(1, 2, 3)),
    )
    model = create_model(config.architecture, **config.model_args).train()
    model(torch.randn(4, 3, 32, 32))
    pruned = prune_channels(model, config.input_size, macs=0.7, round_to=1).model
    decoded = decode(encode(pruned, config))
    assert decoded.config.surgery
    assert (decoded.config.classes, decoded.config.preprocess) == (config.classes, config.preprocess)
    for name, tensor in pruned.state_dict().items():
        assert torch.equal(decoded.model.state_dict()[name], tensor), name
    for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool):
        tensor = torch.tensor([[0, 1, 1], [3, 0, 1]]).to(dtype)
        assert torch.equal(tensor_of(words_of(tensor), tensor), tensor)


def test_one_wrong_bit_is_seen(loaded, content):
    """The control of the step's own check: it must fail where one weight differs in its last bit."""
    other = small()
    with torch.no_grad():
        weight = other.model.fc3.weight.view(torch.int32)
        weight[0, 0] ^= 1
    with pytest.raises(SlimzooError, match=r"fc3\.weight back bit for bit"):
        check_decodes(content, other)


def test_any_damaged_byte_gives_one_line(content):
    rng = np.random.default_rng(0)
    places = [*range(12), *rng.integers(12, len(content), 30).tolist()]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(CodedError) as caught:
            decode(bytes(damaged))
        assert "\n" not in str(caught.value)


def test_any_cut_gives_one_line(content, tmp_path):
    for length in [*range(12), len(content) // 2, len(content) - 1]:
        path = tmp_path / "model.slim"
        path.write_bytes(content[:length])
        with pytest.raises(SlimzooError, match="make it again with `slimzoo export DIR --coded`"):
            load_coded(path)


def with_header(loaded, **changes):
    """A file whose check sum is right and whose header says something else."""
    text = zlib.decompressobj(-15, DICTIONARY).decompress(header_of(loaded.config, {}))
    document = {**json.loads(text), **changes}
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return assemble(deflate.compress(json.dumps(document).encode()) + deflate.flush(), b"", b"")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_args": {"num_classes": 10, "width": 1e9}}, "weights|cannot be built"),
        ({"shapes": {"fc1.weight": [1 << 40, 1 << 40]}}, "weights"),
        ({"shapes": {"fc1.weight": [-1, 3]}}, "negative"),
        ({"shapes": {"fc1.weight": ["x"]}}, "cannot be read"),
        ({"architecture": "nonsense"}, "cannot be built"),
        ({"architecture": 3}, "cannot be built"),
        ({"model_args": {"nonsense": 1}}, "cannot be built"),
        ({"surgery": [{"op": "nonsense"}]}, "cannot be built"),
        ({"surgery": [{"op": "set_attr", "module": "x", "name": "y", "value": 1}]}, "cannot be built"),
        ({"preprocess": {"size": [0, 0]}}, "cannot be read"),
        ({"classes": 3}, "cannot be read"),
    ],
)
def test_a_header_that_lies_takes_no_memory(loaded, changes, said):
    crafted = with_header(loaded, **changes)
    tracemalloc.start()
    with pytest.raises(CodedError, match=said):
        decode(crafted)
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_a_header_that_is_a_bomb():
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = deflate.compress(b"[" * (64 << 20)) + deflate.flush()
    with pytest.raises(CodedError, match="does not end"):
        decode(assemble(bomb, b"", b""))


def test_numbers_that_end_too_early(loaded, content):
    """Cut off, and the check sum mended: an attacker's file, or a writer's fault."""
    header, bulk, numbers = _parts(content)
    with pytest.raises(CodedError, match="end too early"):
        decode(assemble(header, bulk, numbers[: len(numbers) // 2]))


def test_files_that_are_not(tmp_path, content):
    with pytest.raises(UsageError, match="does not exist"):
        load_coded(tmp_path / "none.slim")
    (tmp_path / "other.slim").write_bytes(b"PK\x03\x04 not ours at all")
    with pytest.raises(SlimzooError, match="does not begin with SLIM"):
        load_coded(tmp_path / "other.slim")
    newer = content[:4] + bytes([content[4] + 1]) + content[5:]
    with pytest.raises(CodedError, match="of format 3, this version reads 2"):
        decode(newer)


def test_the_predictor_takes_it(loaded, content, tmp_path):
    path = tmp_path / "model.slim"
    path.write_bytes(content)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), dtype=np.uint8)
    with torch.no_grad():
        expected = loaded.model(torch.from_numpy(PREPROCESS.normalize(pixels))).numpy()
    np.testing.assert_array_equal(open_predictor(path).logits(pixels), expected)
