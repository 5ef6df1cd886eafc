"""The one training loop: against a loop written out, and the same bits whether or not it was interrupted."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from transfer.data.augment import NONE, Augment
from transfer.data.loader import LabelledPixels, batches
from transfer.training import boundary
from transfer.training.checkpoint import EndOfStep
from transfer.training.finetune import TrainingData, finetune, normalized, smoothed_cross_entropy
from transfer.training.optim import one_cycle
from transfer.training.recipe import Recipe
from zoo.classifier import stages
from zoo.create import create_model
from zoo.errors import Interrupted, SlimzooError, UsageError
from zoo.models import efficientnet, googlenet, lenet, resnet, vit
from zoo.preprocess import Preprocess

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
    assert max(p.name for p in tmp_path.iterdir()) == f"step-{step:07d}"
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
        assert signals.signal == 0
        signal.raise_signal(signal.SIGINT)
        assert signals.signal == signal.SIGINT
        with pytest.raises(Interrupted, match="interrupted twice"):
            signal.raise_signal(signal.SIGINT)


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


def test_history_says_how_the_epoch_went(model, data):
    history = finetune(model, data, replace(RECIPE, schedule="constant", warmup=0.0)).history
    assert [line.epoch for line in history] == [1, 2, 3]
    for line in history:
        assert line.lr == RECIPE.lr
        assert 0 < line.waiting_share < 1
        assert 0 < line.seconds
        assert 0 < line.grad_norm < 100


def test_average_of_the_weights_is_evaluated_and_returned(model, data):
    seen = []

    def after_step(network, done):
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})

    found = finetune(model, data, replace(RECIPE, ema=0.5), after_step=after_step)
    expected = {name: tensor.double() for name, tensor in model.state_dict().items()}
    for n, state in enumerate(seen):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = {name: decay * old + (1 - decay) * state[name].double() for name, old in expected.items()}
    for name, tensor in found.model.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        right = found.model(torch.from_numpy(GREY.normalize(data.val.pixels))).argmax(1).numpy() == data.val.labels
    assert found.history[-1].val_top1 == right.mean()


def confused_data():
    """Trained on the opposite of what is validated: the first epochs are the best ones."""
    labels = np.arange(40) % 2
    pixels = np.random.default_rng(0).integers(0, 100, (40, 28, 28, 1)) + 120 * labels[:, None, None, None]
    pixels = pixels.astype(np.uint8)
    return TrainingData(LabelledPixels(pixels, 1 - labels), LabelledPixels(pixels[:30], labels[:30]), GREY)


@pytest.mark.parametrize("ema", [0.0, 0.7])
def test_patience_returns_the_best_epoch_and_stops(tmp_path, ema):
    torch.manual_seed(0)
    network = create_model("lenet5", num_classes=2, width=0.5)
    data = confused_data()
    recipe = replace(RECIPE, epochs=30, augment=NONE, patience=3, ema=ema, schedule="constant")
    found = finetune(network, data, recipe, checkpoints=tmp_path)
    accuracies = [line.val_top1 for line in found.history]
    best = int(np.argmax(accuracies))
    assert best < 15
    assert len(accuracies) == best + 1 + 3

    def predict(model):
        with torch.no_grad():
            return model(torch.from_numpy(GREY.normalize(data.val.pixels))).argmax(1).numpy()

    assert (predict(found.model) == data.val.labels).mean() == accuracies[best]
    # a finished run is not trained on when it is resumed
    steps = []
    again = finetune(network, data, recipe, checkpoints=tmp_path, after_step=lambda _, done: steps.append(done))
    assert steps == []
    assert bits(again.model) == bits(found.model)

    # with another length but the same constant rate, it is the model of that epoch
    short = finetune(network, data, replace(recipe, patience=0, epochs=best + 1, warmup=0.0))
    whole = finetune(network, data, replace(recipe, warmup=0.0))
    assert int(np.argmax([line.val_top1 for line in whole.history])) == best
    assert bits(short.model) == bits(whole.model)


def test_patience_without_validation_images_trains_to_the_end(model, data):
    found = finetune(model, TrainingData(data.train, None, GREY), replace(RECIPE, patience=1))
    assert len(found.history) == 3
    assert bits(found.model) == bits(finetune(model, data, RECIPE).model)


def test_mixed_images_come_with_shares_of_classes(model, data):
    targets = []

    def loss_fn(logits, shares, inputs):
        targets.append(shares)
        return F.cross_entropy(logits, shares)

    finetune(model, data, replace(RECIPE, epochs=1, mixup=0.5), loss_fn=loss_fn)
    assert [tuple(each.shape) for each in targets] == [(7, 10), (7, 10), (6, 10)]
    for shares in targets:
        torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))
    assert any(((shares > 0) & (shares < 1)).any() for shares in targets)


def test_frozen_stages_stay_as_they_are():
    torch.manual_seed(0)
    network = create_model("resnet20", **resnet.TINY["resnet20"])
    frozen = {p for stage in stages(network)[:2] for p in stage.parameters}
    recipe = replace(RECIPE, epochs=1, freeze_statistics=False, frozen_stages=2)
    found = finetune(network, training_data(COLOUR), recipe).model
    for (name, before), after in zip(network.named_parameters(), found.parameters(), strict=True):
        assert torch.equal(before, after) == (before in frozen), name
        assert after.requires_grad
    moved = {
        name.rpartition(".")[0]
        for name, buffer in network.named_buffers()
        if not torch.equal(buffer, found.get_buffer(name))
    }
    norms = {name: module for name, module in network.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert moved == {name for name, module in norms.items() if module.weight not in frozen}


# going on


def test_other_recipe_or_data_is_refused(tmp_path, model, data):
    with pytest.raises(Interrupted):
        finetune(model, data, RECIPE, checkpoints=tmp_path, after_step=interrupt_after(2))
    with pytest.raises(UsageError, match=r"made with lr=0\.002 then and 0\.004 now: resume with the same arguments"):
        finetune(model, data, replace(RECIPE, lr=4e-3), checkpoints=tmp_path)
    with pytest.raises(UsageError, match=r"epochs=3 then and 4 now, images=20 then and 24 now"):
        finetune(model, training_data(GREY, n=24), replace(RECIPE, epochs=4), checkpoints=tmp_path)


def test_other_threads_are_warned_of(tmp_path, model, data, monkeypatch):
    with pytest.raises(Interrupted):
        finetune(model, data, RECIPE, checkpoints=tmp_path, after_step=interrupt_after(2))
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.warns(UserWarning, match=f"began on {threads} threads, now {threads + 1}: it may end with other bits"):
        finetune(model, data, RECIPE, checkpoints=tmp_path)


def test_checkpoints_every_so_many_steps_and_at_epochs_ends(tmp_path, model, data, monkeypatch):
    monkeypatch.setattr("transfer.training.boundary.CHECKPOINT_STEPS", 4)
    monkeypatch.setattr("transfer.training.boundary.SAVING_SHARE", float("inf"))  # however long saving takes
    newest = []
    finetune(
        model,
        data,
        RECIPE,
        checkpoints=tmp_path,
        after_step=lambda _, done: newest.append(max((p.name for p in tmp_path.glob("step-*")), default="")),
    )
    steps = [int(name[5:]) if name else 0 for name in newest]
    assert steps == [0, 0, 0, 3, 4, 4, 6, 6, 8]
    assert max(p.name for p in tmp_path.glob("step-*")) == "step-0000009"


def test_slow_saving_passes_over_ends_of_epochs_but_not_over_the_interval(tmp_path, model, data, monkeypatch):
    monkeypatch.setattr("transfer.training.boundary.CHECKPOINT_STEPS", 4)
    monkeypatch.setattr("transfer.training.boundary.SAVING_SHARE", 1e-9)
    saved = []
    original = boundary.save_checkpoint
    monkeypatch.setattr(
        "transfer.training.boundary.save_checkpoint",
        lambda at, kept: (saved.append(kept.state["step"]), original(at, kept)),
    )
    finetune(model, data, RECIPE, checkpoints=tmp_path)
    assert saved == [3, 4, 8, 9]


# numbers that are no longer finite


class Poison:
    """Adds NaN to the loss in some passes, counted from 0 through the whole run."""

    def __init__(self, *passes):
        self.passes, self.count = passes, -1

    def __call__(self, logits, labels, inputs):
        self.count += 1
        return F.cross_entropy(logits, labels) + (float("nan") if self.count in self.passes else 0.0)


@pytest.mark.parametrize("checkpointed", [True, False])
def test_nan_goes_back_to_the_boundary_and_on_with_half_of_the_rates(tmp_path, model, data, checkpointed):
    rates, where = [], tmp_path / "checkpoints" if checkpointed else None
    recipe = replace(RECIPE, schedule="constant", warmup=0.0)
    found = finetune(
        model,
        data,
        recipe,
        loss_fn=Poison(4, 10),
        checkpoints=where,
        progress=lambda title, done, total, note: rates.append((done, note.split("  ")[0])),
    )
    assert found.halvings == 2
    # passes 0 to 3 are steps 1 to 4; pass 4 would be step 5, so back to 3; pass 10 would be step 9, so back to 6
    assert [done for done, _ in rates] == [1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 6, 7, 8, 9]
    assert [note for _, note in rates if "back" in note] == [
        "the loss became nan at step 5: back to a boundary, with half of the rates",
        "the loss became nan at step 9: back to a boundary, with half of the rates",
    ]
    assert [line.lr for line in found.history] == [2e-3, 1e-3, 5e-4]
    if checkpointed:
        assert sorted(p.name for p in where.iterdir())[-1] == "step-0000009.2"


def test_rates_after_going_back_are_those_of_the_recipe_halved(model, data):
    """A run whose every step is halved is the run with half of the rates."""
    found = finetune(model, data, RECIPE, loss_fn=Poison(0))
    half = replace(RECIPE, lr=RECIPE.lr / 2, backbone_lr=RECIPE.backbone_lr / 2)
    assert bits(found.model) == bits(finetune(model, data, half, loss_fn=Poison()).model)


def test_the_third_time_names_the_batch(model, data):
    keys = tuple(f"images/{i}.png" for i in range(20))
    named = TrainingData(replace(data.train, keys=keys), data.val, GREY)
    first, second, third = batches(20, 8, seed=0, epoch=0)[1][:3]
    with pytest.raises(
        SlimzooError,
        match=r"^the loss became nan at step 2 of 9, after the rates were halved 2 times to lr=0\.0005, "
        r"backbone_lr=0\.00025: try a tenth of lr, or look at that batch: "
        rf"images/{first}\.png, images/{second}\.png, images/{third}\.png and 4 more$",
    ):
        finetune(model, named, RECIPE, loss_fn=Poison(1, 3, 5))


@pytest.mark.parametrize("interrupted_at", [4, 5])
def test_interrupted_between_boundaries_goes_back_to_the_same_one(tmp_path, model, data, interrupted_at):
    """Not to the state at the interruption, which an uninterrupted run does not have."""
    whole = finetune(model, data, RECIPE, loss_fn=Poison(5))
    poison = Poison(5)
    with pytest.raises(Interrupted):
        finetune(model, data, RECIPE, loss_fn=poison, checkpoints=tmp_path, after_step=interrupt_after(interrupted_at))
    resumed = finetune(model, data, RECIPE, loss_fn=poison, checkpoints=tmp_path)
    assert resumed.halvings == whole.halvings == 1
    assert bits(resumed.model) == bits(whole.model)


def test_interrupted_after_going_back_ends_with_the_same_bits(tmp_path, model, data):
    whole = finetune(model, data, RECIPE, loss_fn=Poison(4))
    poison = Poison(4)
    with pytest.raises(Interrupted):
        finetune(model, data, RECIPE, loss_fn=poison, checkpoints=tmp_path, after_step=interrupt_after(5))
    assert bits(finetune(model, data, RECIPE, loss_fn=poison, checkpoints=tmp_path).model) == bits(whole.model)


# memory


class Bounded(torch.nn.Module):
    """A model that runs out of memory above some number of images, from some call on."""

    def __init__(self, model, most, after=0):
        super().__init__()
        self.model, self.most, self.after, self.calls = model, most, after, 0
        self.num_classes = 10

    def forward(self, x):
        if self.training:
            self.calls += 1
            if len(x) > self.most and self.calls > self.after:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(x)


@pytest.mark.parametrize(("most", "after", "micro"), [(8, 0, 5), (4, 0, 3), (2, 0, 2), (1, 0, 1), (4, 3, 3), (2, 5, 2)])
def test_short_memory_accumulates_to_the_same_step(model, data, most, after, micro):
    model.drop.p = 0.0  # its draws differ between the parts
    recipe = replace(RECIPE, batch=10)
    plain = finetune(Bounded(model, 99), data, recipe)
    found = finetune(Bounded(model, most, after), data, recipe)
    assert (plain.micro_batch, found.micro_batch) == (10, micro)
    for (name, one), other in zip(found.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5, msg=name)
    for one, other in zip(found.history, plain.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)


def test_found_batch_size_survives_an_interruption(tmp_path, model, data):
    """Dropout is drawn for each part, so the bits tell whether the parts are the same."""
    whole = finetune(Bounded(model, 3), data, RECIPE)
    with pytest.raises(Interrupted):
        finetune(Bounded(model, 3), data, RECIPE, checkpoints=tmp_path, after_step=interrupt_after(4))
    resumed = finetune(Bounded(model, 99), data, RECIPE, checkpoints=tmp_path)
    assert resumed.micro_batch == whole.micro_batch == 2
    assert bits(resumed.model) == bits(whole.model)


def test_statistics_of_a_failed_pass_do_not_count():
    """BatchNorm's moving averages after a failure are those of a run that began with the smaller parts."""
    torch.manual_seed(0)
    network = create_model("resnet20", **resnet.TINY["resnet20"])
    data, recipe = training_data(COLOUR), replace(RECIPE, epochs=1, freeze_statistics=False)

    class FailsLate(Bounded):
        def forward(self, x):
            answer = self.model(x)
            if self.training and len(x) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return answer

    one, other = (finetune(kind(network, 4), data, recipe).model for kind in (Bounded, FailsLate))
    assert bits(one) == bits(other)


def test_one_image_that_does_not_fit_is_said(model, data):
    with pytest.raises(SlimzooError, match=r"one image of \(28, 28\) pixels at a time does not fit.*smaller size"):
        finetune(Bounded(model, 0), data, RECIPE)
