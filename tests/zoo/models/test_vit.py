import pytest
import timm
import torch

import zoo


@pytest.mark.parametrize("layer_scale", [None, 1e-5])
def test_same_function_as_timm(layer_scale, assert_same_function):
    model = zoo.create_model("vit_tiny", image_size=96, layer_scale=layer_scale)
    reference = timm.create_model("vit_tiny_patch16_224", img_size=96, init_values=layer_scale)
    assert_same_function(model, reference, (3, 96, 96))


PARAMETERS = {"tiny": 5_717_416, "small": 22_050_664, "base": 86_567_656}  # DeiT, Table 1: 5M, 22M, 86M
NAMES = [f"{family}_{size}" for family in ("vit", "deit") for size in PARAMETERS]


@pytest.mark.parametrize("name", NAMES)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        assert zoo.count_parameters(zoo.create_model(name)) == PARAMETERS[name.partition("_")[2]]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_variant_is_timms_function(name, assert_same_function):
    reference = timm.create_model(f"{name}_patch16_224", img_size=48)
    assert_same_function(zoo.create_model(name, image_size=48), reference, (3, 48, 48))


def test_vit_pico_counted_by_hand():
    D, layers, patches = 128, 6, 64
    L = patches + 1
    block = 2 * 2 * D + D * 3 * D + 3 * D + D * D + D + 2 * D * 4 * D + 5 * D  # two norms, qkv, proj, MLP
    parameters = (4 * 4 * 3 * D + D) + D + L * D + layers * block + 2 * D + (D * 10 + 10)
    macs = patches * 4 * 4 * 3 * D + layers * (L * 12 * D * D + 2 * L * L * D) + D * 10
    model = zoo.create_model("vit_pico")
    assert zoo.count_parameters(model) == parameters == 1_205_898
    assert zoo.count_macs(model, (3, 32, 32)) == macs == 83_561_216
    resnets = [zoo.count_macs(zoo.create_model(name), (3, 32, 32)) for name in ("resnet20", "resnet56")]
    assert resnets[0] < macs < resnets[1]


@pytest.mark.parametrize(("side", "patch"), [(28, 4), (64, 8), (64, 4)])
def test_vit_pico_takes_other_small_images(side, patch):
    model = zoo.create_model("vit_pico", image_size=side, patch_size=patch, in_channels=1)
    assert model(torch.randn(2, 1, side, side)).shape == (2, 10)


def test_the_wrong_image_size_is_answered_with_the_right_one():
    with pytest.raises(ValueError, match="got images of 32x48; this model takes 64x64"):
        zoo.create_model("vit_tiny", image_size=64, depth=1)(torch.zeros(1, 3, 32, 48))
    with pytest.raises(ValueError, match="image_size=65 is not a multiple of patch_size=16"):
        zoo.create_model("vit_tiny", image_size=65)
    with pytest.raises(ValueError, match="width=192 is not a multiple of num_heads=5"):
        zoo.create_model("vit_tiny", num_heads=5)


def test_attention_is_its_formula_also_after_a_head_was_cut():
    block = zoo.create_model("vit_tiny", width=24, depth=1, num_heads=3, image_size=32).blocks[0].attn.double()
    x = torch.randn(2, 5, 24).double()

    def formula(heads):
        q, k, v = (block.qkv.weight @ x.mT + block.qkv.bias[:, None]).reshape(2, 3, heads, 8, 5).unbind(1)
        out = (torch.softmax(q.mT @ k / 8**0.5, dim=-1) @ v.mT).mT.reshape(2, heads * 8, 5)
        return (block.proj.weight @ out + block.proj.bias[:, None]).mT

    torch.testing.assert_close(block(x), formula(3))
    keep = [i for part in range(3) for i in range(part * 24, part * 24 + 16)]  # the first two heads of q, k and v
    block.qkv.weight, block.qkv.bias = (torch.nn.Parameter(t[keep]) for t in (block.qkv.weight, block.qkv.bias))
    block.proj.weight = torch.nn.Parameter(block.proj.weight[:, :16])
    block.num_heads = 2
    torch.testing.assert_close(block(x), formula(2))
