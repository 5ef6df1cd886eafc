"""The one training loop: against a loop written out, and the same bits whether or not it was interrupted."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from transfer.augment import NONE, Augment
from transfer.checkpoint import EndOfStep, load_checkpoint_, save_checkpoint
from transfer.finetune import TrainingData, finetune, normalized, smoothed_cross_entropy
from transfer.loader import LabelledPixels, batches
from transfer.optim import build_optimizer, one_cycle
from transfer.recipe import Recipe
from zoo import efficientnet, googlenet, lenet, resnet, vit
from zoo.errors import Interrupted, SlimzooError, UsageError
from zoo.preprocess import Preprocess
from zoo.registry import create_model

GREY = Preprocess(size=(28, 28), mean=(0.5,), std=(0.25,))
COLOUR = Preprocess(size=(32, 32))
RECIPE = Recipe(epochs=3, batch=8, lr=2e-3, backbone_lr=1e-3, warmup=0.25, weight_decay=0.05, label_smoothing=0.1)


def random_data(preprocess, n=20, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, *preprocess.size, preprocess.channels), dtype=np.uint8)
    return LabelledPixels(pixels, rng.integers(0, classes, n))


def training_data(preprocess, **how):
    return TrainingData(random_data(preprocess, **how), random_data(preprocess, n=12, seed=1), preprocess)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("lenet5", **lenet.TINY["lenet5"], dropout=0.5)


@pytest.fixture
def data():
    return training_data(GREY)


def bits(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def interrupt_after(step, number=signal.SIGINT):
    def after_step(model, done):
        if done == step:
            os.kill(os.getpid(), number)

    return after_step


TINY_MODELS = {
    "lenet5": (lenet.TINY["lenet5"], GREY),
    "resnet20": (resnet.TINY["resnet20"], COLOUR),
    "tf_efficientnet_lite0": (efficientnet.TINY["tf_efficientnet_lite0"], COLOUR),
    "vit_tiny": (vit.TINY["vit_tiny"], None),
}


@pytest.mark.parametrize("name", TINY_MODELS)
@pytest.mark.parametrize("step", [1, 3, 5])  # 3 steps an epoch: within the first, at its end, within the second
def test_interrupted_and_resumed_run_ends_with_the_same_bits(tmp_path, name, step):
    arguments, preprocess = TINY_MODELS[name]
    if preprocess is None:
        side = arguments["image_size"]
        preprocess = Preprocess(size=(side, side))
    recipe = replace(RECIPE, freeze_statistics=False)
    torch.manual_seed(0)
    network, data = create_model(name, **arguments), training_data(preprocess, classes=arguments["num_classes"])
    whole = finetune(network, data, recipe)
    with pytest.raises(Interrupted, match="interrupted") as caught:
        finetune(network, data, recipe, checkpoints=tmp_path, after_step=interrupt_after(step))
    assert caught.value.exit_code == 130
    assert [p.name for p in tmp_path.iterdir()] == [f"step-{step:07d}"]
    torch.manual_seed(1234)  # a fresh process has another state
    resumed_steps = []
    resumed = finetune(
        network, data, recipe, checkpoints=tmp_path, after_step=lambda _, done: resumed_steps.append(done)
    )
    assert resumed_steps == list(range(step + 1, 10))
    assert bits(resumed.model) == bits(whole.model) != bits(network)
    assert [(e.epoch, e.train_loss, e.val_top1) for e in resumed.history] == [
        (e.epoch, e.train_loss, e.val_top1) for e in whole.history
    ]


def test_sigterm_is_143_and_handlers_are_put_back(tmp_path, model, data):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as caught:
        finetune(model, data, RECIPE, checkpoints=tmp_path, after_step=interrupt_after(2, signal.SIGTERM))
    assert caught.value.exit_code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_second_signal_acts_at_once():
    with EndOfStep() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.signal == signal.SIGINT
        with pytest.raises(Interrupted, match="interrupted twice"):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted, match=r"^interrupted$"):
            signals.raise_if_asked()


def test_callers_model_and_modes_are_left_alone(model, data):
    model.train()
    before = bits(model)
    finetuned = finetune(model, data, RECIPE)
    assert bits(model) == before
    assert model.training
    assert not finetuned.model.training
    assert all(p.grad is None for p in model.parameters())


def test_it_is_adamw_on_the_batches_of_the_recipe(model, data):
    """The loop written out with torch's own parts: no augmentation, no dropout, one rate for all."""
    recipe = replace(RECIPE, epochs=2, lr=1e-2, backbone_lr=1e-2, augment=NONE, clip_norm=1e9, label_smoothing=0.2)
    model.drop.p = 0.0
    found = finetune(model, data, recipe).model

    reference = create_model("lenet5", **lenet.TINY["lenet5"])
    reference.load_state_dict(model.state_dict())
    matrices = [p for p in reference.parameters() if p.ndim > 1]
    vectors = [p for p in reference.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, eps=1e-6)
    # 6 steps: rise over round(0.25 x 6) = 2, then a cosine to zero over 4
    shares = [0.5, 1.0, *((1 + np.cos(np.pi * k / 4)) / 2 for k in (1, 2, 3, 4))]
    for epoch in range(2):
        for indices in batches(20, 8, seed=0, epoch=epoch):
            for group in optimizer.param_groups:
                group["lr"] = 1e-2 * shares[0]
            shares.pop(0)
            x = torch.from_numpy(GREY.normalize(data.train.pixels[indices]))
            log_p = F.log_softmax(reference(x), dim=1)
            picked = log_p.gather(1, torch.from_numpy(data.train.labels[indices])[:, None])
            loss = (-(1 - 0.2) * picked[:, 0] - 0.2 * log_p.mean(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for (name, tensor), expected in zip(found.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(tensor, expected, rtol=1e-4, atol=1e-5, msg=name)


def test_it_learns():
    """Images whose brightness is their class."""
    labels = np.arange(40) % 2
    pixels = np.random.default_rng(0).integers(0, 100, (40, 28, 28, 1)) + 120 * labels[:, None, None, None]
    easy = LabelledPixels(pixels.astype(np.uint8), labels)
    torch.manual_seed(0)
    network = create_model("lenet5", num_classes=2, width=0.5)
    finetuned = finetune(network, TrainingData(easy, easy, GREY), replace(RECIPE, epochs=12))
    assert finetuned.history[-1].val_top1 == 1.0
    assert finetuned.history[-1].train_loss < finetuned.history[0].train_loss
    with torch.no_grad():
        predicted = finetuned.model(torch.from_numpy(GREY.normalize(easy.pixels))).argmax(1).numpy()
    assert (predicted == labels).all()


def test_loss_fn_and_after_step_are_called_each_step(model, data):
    calls, steps = [], []

    def loss_fn(logits, labels, inputs):
        calls.append((tuple(logits.shape), labels.tolist(), tuple(inputs.shape)))
        return F.cross_entropy(logits, labels)

    def zero_a_filter(network, done):
        steps.append(done)
        with torch.no_grad():
            network.conv1.weight[0] = 0

    found = finetune(model, data, RECIPE, loss_fn=loss_fn, after_step=zero_a_filter)
    assert steps == list(range(1, 10))
    assert (found.model.conv1.weight[0] == 0).all()
    assert (found.model.conv1.weight[1] != 0).all()
    expected = [
        data.train.labels[indices].tolist() for epoch in range(3) for indices in batches(20, 8, seed=0, epoch=epoch)
    ]
    assert [labels for _, labels, _ in calls] == expected
    assert calls[0][0] == (7, 10)
    assert calls[0][2] == (7, 1, 28, 28)


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_batch_norm_are_frozen_or_not(frozen):
    network = create_model("resnet20", **resnet.TINY["resnet20"])
    found = finetune(network, training_data(COLOUR), replace(RECIPE, epochs=1, freeze_statistics=frozen)).model
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            assert torch.equal(found.get_buffer(name), buffer) == frozen


def test_progress_hears_of_every_step(model, data):
    heard = []
    finetune(model, data, RECIPE, progress=lambda *what: heard.append(what), title="recovery")
    assert [what[:3] for what in heard] == [("recovery", step, 9) for step in range(1, 10)]


def test_no_epochs_change_nothing(model, data):
    found = finetune(model, data, replace(RECIPE, epochs=0))
    assert bits(found.model) == bits(model)
    assert found.history == []


def test_loss_that_explodes_is_said(model, data):
    with pytest.raises(SlimzooError, match=r"the loss became nan with lr=0\.002.*try a tenth of --lr"):
        finetune(model, data, RECIPE, loss_fn=lambda logits, labels, inputs: logits.sum() * float("nan"))


@pytest.mark.parametrize("change", [{"epochs": -1}, {"batch": 0}, {"lr": 0.0}, {"backbone_lr": -1.0}])
def test_recipe_refuses_what_cannot_be(change):
    with pytest.raises(UsageError, match="must be"):
        replace(RECIPE, **change)


def test_recipe_survives_json():
    record = json.loads(json.dumps(RECIPE.to_dict()))
    assert Recipe(**{**record, "augment": Augment(**record["augment"])}) == RECIPE


def test_one_cycle_rises_and_falls():
    rates = [one_cycle(step, 100, 0.25) for step in range(100)]
    assert rates[24] == max(rates) == 1.0
    np.testing.assert_allclose(np.diff(rates[:25]), 1 / 25)
    assert all(np.diff(rates[24:]) < 0)
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert one_cycle(0, 1, 0.25) == 1.0


def test_default_loss_is_smoothed_cross_entropy():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    target = torch.full((5, 4), 0.3 / 4).scatter_(1, labels[:, None], 0.7 + 0.3 / 4)
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(smoothed_cross_entropy(0.3)(logits, labels, logits), expected)


def test_tensors_and_arrays_are_normalized_alike():
    pixels = random_data(COLOUR, n=3).pixels
    found = normalized(torch.from_numpy(pixels).permute(0, 3, 1, 2).float(), COLOUR)
    np.testing.assert_allclose(found.numpy(), COLOUR.normalize(pixels), rtol=1e-5, atol=1e-6)


# checkpoints


def test_checkpoint_brings_everything_back(tmp_path, model):
    optimizer = build_optimizer(model, RECIPE)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    save_checkpoint(tmp_path, model, optimizer, {"step": 7, "history": []})
    other = create_model("lenet5", **lenet.TINY["lenet5"], dropout=0.5)
    fresh = build_optimizer(other, RECIPE)
    assert load_checkpoint_(tmp_path, other, fresh) == {"step": 7, "history": []}
    assert bits(other) == bits(model)
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            assert torch.equal(fresh.state_dict()["state"][index][name], value)
    assert not [p for p in tmp_path.rglob("*") if p.suffix not in ("", ".safetensors", ".json")]  # no pickle


def test_no_checkpoint_is_none(tmp_path, model):
    assert load_checkpoint_(tmp_path, model, build_optimizer(model, RECIPE)) is None


def test_failed_checkpoint_keeps_the_one_before(tmp_path, model, monkeypatch):
    optimizer = build_optimizer(model, RECIPE)
    save_checkpoint(tmp_path, model, optimizer, {"step": 9})
    writes = count()

    def full_disk(path, tensors):
        if next(writes):
            raise OSError(28, "No space left on device")
        path.write_bytes(b"half")

    monkeypatch.setattr("transfer.checkpoint.write_tensors", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, model, optimizer, {"step": 10})
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000009"]
    assert load_checkpoint_(tmp_path, model, optimizer) == {"step": 9}


def test_auxiliary_heads_of_training_add_three_tenths_of_their_loss():
    torch.manual_seed(0)
    model = create_model("googlenet", **googlenet.TINY["googlenet"], aux_heads=True, dropout=0.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    data = TrainingData(random_data(COLOUR, n=6), None, COLOUR)
    recipe = replace(RECIPE, epochs=1, batch=6, augment=NONE, freeze_statistics=False)
    (epoch,) = finetune(model, data, recipe).history
    labels = torch.from_numpy(data.train.labels)
    logits, aux2, aux1 = model.train()(torch.from_numpy(COLOUR.normalize(data.train.pixels)))
    main, second, first = (F.cross_entropy(each, labels, label_smoothing=0.1) for each in (logits, aux2, aux1))
    assert epoch.train_loss == pytest.approx(float((main + 0.3 * (second + first)).detach()), rel=1e-4)
