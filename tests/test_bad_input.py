"""Bad input and bad luck, at the command line: one clear line, the right exit code, and nothing half-written.

Each command is a process of its own, with its own signals and limits. Most are forked from one process that has
imported torch already, which saves seconds a test; `test_the_installed_command` runs the real thing.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
LENET = ["--model", "lenet5", "--method", "scratch"]
EPOCHS = 8

FORKING_SERVER = """
import gc, json, os, signal, sys
import altair, sklearn.datasets, torch._dynamo, vl_convert
import transfer.evaluation.evaluate, transfer.fitting.step, transfer.prediction
from compress.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background has it ignored
gc.freeze()
for line in sys.stdin:
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(request["cwd"])
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        if request["largest_file"]:
            import resource
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
        sys.argv = ["slimzoo", *request["argv"]]
        try:
            main()
        except SystemExit as done:
            sys.stdout.flush()
            os._exit(done.code)  # tidying up so large a process takes longer than the command
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Done:
    code: int
    out: str
    err: str

    def fails(self, code, *words):
        """Exit code and one line on stderr, which says all of `words`; on stdout what folders are, and a preflight."""
        assert self.code == code, self.err
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        said = [line for line in self.out.splitlines() if not line.startswith(("ok  ", "WARN", "   "))]
        assert [line for line in said if not line.endswith("are classes")] == []
        for word in words:
            assert str(word) in self.err, f"{word!r} is not in {self.err!r}"


class Slimzoo:
    def __init__(self, folder):
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-c", FORKING_SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, *argv, cwd=ROOT, largest_file=None, meanwhile=None):
        """Run one command; `meanwhile` is called with its process id while it runs."""
        stdout, stderr = self.folder / "stdout", self.folder / "stderr"
        request = {"argv": [str(a) for a in argv], "cwd": str(cwd), "largest_file": largest_file}
        request |= {"stdout": str(stdout), "stderr": str(stderr)}
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        child = int(self.server.stdout.readline())
        if meanwhile is not None:
            meanwhile(child)
        code = int(self.server.stdout.readline())
        return Done(code, stdout.read_text(), stderr.read_text())

    def close(self):
        self.server.stdin.close()
        self.server.wait(10)
        self.server.stdout.close()


@pytest.fixture(scope="module")
def slimzoo(tmp_path_factory):
    command = Slimzoo(tmp_path_factory.mktemp("said"))
    yield command
    command.close()


@pytest.fixture(scope="module")
def model(slimzoo, tmp_path_factory):
    """A model of the digits that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "model"
    done = slimzoo("fit", "digits", *LENET, "--epochs", EPOCHS, "--out", out)
    assert done.code == 0, done.err
    return out


def weights(out):
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def save(path, seed=0, side=28):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def pets(tmp_path):
    for i in range(10):
        save(tmp_path / "pets" / ("cat" if i % 2 else "dog") / f"{i}.jpg", i)
    return tmp_path / "pets"


# names


def test_the_installed_command():
    script = Path(sys.executable).with_name("slimzoo")
    command = [script] if script.exists() else [sys.executable, "-m", "compress"]
    for argv, words in (
        (["fti", "digits"], ["no such command 'fti'", "'fit'"]),
        (["fit", "digits", "--epoch", "1", "--out", "x"], ["no such option: --epoch", "--epochs"]),
    ):
        done = subprocess.run([*command, *argv], capture_output=True, text=True, cwd=ROOT)
        Done(done.returncode, done.stdout, done.stderr).fails(2, *words)


def test_unknown_verb(slimzoo):
    slimzoo("predcit", "a.png").fails(2, "no such command 'predcit'", "'predict'")


def test_unknown_option(slimzoo, tmp_path):
    slimzoo("fit", "digits", "--sede", "1", "--out", tmp_path / "m").fails(2, "no such option: --sede", "--seed")


def test_option_of_the_wrong_kind(slimzoo, tmp_path):
    slimzoo("fit", "digits", "--epochs", "many", "--out", tmp_path / "m").fails(2, "'--epochs'", "integer")


def test_unknown_model(slimzoo, tmp_path):
    slimzoo("fit", "digits", "--model", "resnet19", "--out", tmp_path / "m").fails(
        2, "unknown model 'resnet19'", "did you mean 'resnet18'"
    )
    slimzoo("info", "lenet6").fails(2, "unknown model 'lenet6'", "'lenet5'")
    assert list(tmp_path.iterdir()) == []


def test_unknown_dataset(slimzoo, tmp_path):
    slimzoo("fit", "digit", "--out", tmp_path / "m").fails(2, "no dataset 'digit'", "did you mean 'digits'")


def test_unknown_method(slimzoo, tmp_path):
    slimzoo("fit", "digits", "--method", "prob", "--out", tmp_path / "m").fails(2, "'prob'", "'probe'")


def test_no_model_directory(slimzoo, tmp_path):
    slimzoo("eval", tmp_path / "nothing", "digits").fails(2, "nothing does not exist", "wanted: a model directory")
    slimzoo("resume", tmp_path / "nothing").fails(2, "nothing to resume")


def test_no_arguments_show_the_help(slimzoo):
    done = slimzoo()
    assert (done.code, done.err) == (2, "")
    assert "Usage" in done.out


def test_debug_shows_where(slimzoo, tmp_path):
    done = slimzoo("--debug", "fit", "digit", "--out", tmp_path / "m")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("error: no dataset 'digit'")


# images


def test_folder_with_no_images(slimzoo, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "readme.txt").write_text("nothing here")
    slimzoo("fit", tmp_path / "data", "--out", tmp_path / "m").fails(3, tmp_path / "data", "no images")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_truncated_jpeg_in_a_folder(slimzoo, pets):
    broken = pets / "cat" / "5.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    out = pets.with_name("m")
    slimzoo("fit", pets, *LENET, "--out", out).fails(3, broken, "truncated or damaged")
    assert [p.name for p in pets.parent.iterdir()] == ["pets"]


def test_class_with_one_image(slimzoo, pets):
    save(pets / "emu" / "1.png")
    slimzoo("fit", pets, "--out", pets.with_name("m")).fails(3, "class 'emu' has 1 distinct image", "add images")
    assert [p.name for p in pets.parent.iterdir()] == ["pets"]


def scores(slimzoo, model, *paths):
    done = slimzoo("predict", model, *paths, "--top", "10", "--json")
    assert done.code == 0, done.err
    assert done.err.count("\n") == len(paths)  # what people read, and no warning
    return [{entry["label"]: entry["score"] for entry in p["top"]} for p in json.loads(done.out)["predictions"]]


def blobs(side=28):
    """A bright stroke, so that a turn or a clipped picture changes the answer."""
    pixels = np.zeros((side, side), dtype=np.uint8)
    pixels[4:24, 9:13] = 250
    pixels[4:9, 9:22] = 180
    return pixels


def test_16_bit_png_is_read_rightly(slimzoo, model, tmp_path):
    plain, deep, clipped = (tmp_path / f"{name}.png" for name in ("plain", "deep", "clipped"))
    Image.fromarray(blobs()).save(plain)
    Image.fromarray(blobs().astype(np.uint16) * 257).save(deep)
    Image.fromarray((blobs() > 0).astype(np.uint8) * 255).save(clipped)  # the usual mistake
    one, two, wrong = scores(slimzoo, model, plain, deep, clipped)
    assert one == two != wrong


def test_exif_rotated_jpeg_is_read_rightly(slimzoo, model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise
    stored = Image.fromarray(blobs())
    stored.save(tmp_path / "rotated.jpg", exif=exif)
    stored.save(tmp_path / "stored.jpg")
    decoded = np.asarray(Image.open(tmp_path / "stored.jpg"))
    Image.fromarray(np.rot90(decoded, -1).copy()).save(tmp_path / "upright.png")
    one, two, wrong = scores(slimzoo, model, *(tmp_path / n for n in ("rotated.jpg", "upright.png", "stored.jpg")))
    assert one == two != wrong


def test_transparent_png_is_read_rightly(slimzoo, model, tmp_path):
    alpha = Image.fromarray(np.stack([np.zeros((28, 28), dtype=np.uint8), blobs()], axis=-1))  # black ink on nothing
    alpha.save(tmp_path / "ink.png")
    Image.fromarray(255 - blobs()).save(tmp_path / "on-white.png")
    Image.new("L", (28, 28)).save(tmp_path / "black.png")  # with the alpha thrown away
    one, two, wrong = scores(slimzoo, model, *(tmp_path / n for n in ("ink.png", "on-white.png", "black.png")))
    assert one == two != wrong


def test_unreadable_images_in_predict(slimzoo, model, tmp_path):
    good = save(tmp_path / "good.png")
    half = save(tmp_path / "half.jpg", side=64)
    half.write_bytes(half.read_bytes()[:900])
    slimzoo("predict", model, half).fails(3, half, "truncated or damaged")
    both = slimzoo("predict", model, good, half)
    assert both.code == 3
    assert both.out.startswith(f"{good}: ")
    assert both.err.startswith(f"{half}: truncated or damaged")
    assert both.err.endswith("\nerror: 1 of 2 images cannot be read\n")
    (tmp_path / "text.png").write_text("hello")
    slimzoo("predict", model, tmp_path / "text.png").fails(3, "text.png", "not an image")
    slimzoo("predict", model, tmp_path / "none.png").fails(3, "none.png", "No such file")
    header = bytearray(good.read_bytes()[:20])
    (tmp_path / "cut.png").write_bytes(header)
    slimzoo("predict", model, tmp_path / "cut.png").fails(3, "cut.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 9)).save(tmp_path / "meta.tif", exif=exif)
    (tmp_path / "meta.tif").write_bytes((tmp_path / "meta.tif").read_bytes()[:60])
    slimzoo("predict", model, tmp_path / "meta.tif").fails(3, "meta.tif")  # and not a word from Pillow


# output directories


def test_output_directory_that_exists(slimzoo, tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("years of work")
    before = contents(tmp_path)
    slimzoo("fit", "digits", *LENET, "--out", out).fails(2, out, "exists and is not empty", "--overwrite")
    slimzoo("fit", "digits", *LENET, "--overwrite", "--out", out).fails(2, out, "was not made by slimzoo")
    (tmp_path / "file").write_text("")
    slimzoo("fit", "digits", *LENET, "--out", tmp_path / "file").fails(2, "is a file")
    (tmp_path / "file").unlink()
    assert contents(tmp_path) == before


def test_damaged_model_is_named(slimzoo, model, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in contents(model).items():
        (copy / name).write_bytes(content)
    (copy / "model.safetensors").write_bytes(contents(model)["model.safetensors"][:-1] + b"?")
    slimzoo("predict", copy, save(tmp_path / "a.png")).fails(1, copy / "model.safetensors", "damaged or edited")


# a full disk


def test_file_size_limit(slimzoo, tmp_path):
    out = tmp_path / "m"
    slimzoo("fit", "digits", *LENET, "--epochs", "1", "--out", out, largest_file=100_000).fails(
        1, "disk of", out, "full"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def resize(disk, kilobytes):
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)


def test_full_disk_leaves_nothing(slimzoo, small_disk):
    out = small_disk / "m"  # a checkpoint is 250 kB of weights and 500 kB of moments
    slimzoo("fit", "digits", *LENET, "--epochs", "1", "--out", out).fails(1, "disk of", out, "full", "free some space")
    assert list(small_disk.iterdir()) == []


def test_run_continues_when_the_full_disk_has_room_again(slimzoo, small_disk, model):
    resize(small_disk, 1200)  # one checkpoint, and no second one beside it
    out = small_disk / "m"
    fit = ["fit", "digits", *LENET, "--epochs", EPOCHS, "--out", out]
    slimzoo(*fit).fails(1, "disk of", out, "full", f"slimzoo resume {out}")
    assert [p.name for p in small_disk.iterdir()] == ["m.partial"]
    kept = {p.name for p in (small_disk / "m.partial" / "checkpoints").iterdir()}
    assert kept - {"plan.json"} == {"step-0000034"}
    resize(small_disk, 8000)
    assert slimzoo("resume", out).code == 0
    assert weights(out) == weights(model)
    assert [p.name for p in small_disk.iterdir()] == ["m"]


# signals


def send_in_training(out, number):
    """Send a signal once the first checkpoint is there."""

    def meanwhile(process):
        checkpoints, deadline = out.with_name(out.name + ".partial") / "checkpoints", time.monotonic() + 60
        while not any(checkpoints.glob("step-*")):
            assert time.monotonic() < deadline, "no checkpoint in 60 s"
            time.sleep(0.002)
        os.kill(process, number)

    return meanwhile


def test_ctrl_c_and_resume(slimzoo, model, tmp_path):
    out = tmp_path / "m"
    fit = ["fit", "digits", *LENET, "--epochs", EPOCHS, "--out", out]
    slimzoo(*fit, meanwhile=send_in_training(out, signal.SIGINT)).fails(130, "interrupted", f"`slimzoo resume {out}`")
    assert [p.name for p in tmp_path.iterdir()] == ["m.partial"]
    state = next((tmp_path / "m.partial" / "checkpoints").glob("*/state.json"))
    assert 34 <= json.loads(state.read_text())["step"] < 34 * EPOCHS
    slimzoo(*fit).fails(2, "holds an interrupted run", f"`slimzoo resume {out}`", "--overwrite")
    done = slimzoo("resume", out)
    assert done.code == 0, done.err
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert weights(out) == weights(model)
    assert (out / "history.csv").read_text().count("\n") == EPOCHS + 1
    slimzoo("resume", out).fails(2, f"{out} is complete", "nothing to resume")


def test_sigterm_and_killed_twice(slimzoo, model, tmp_path):
    out = tmp_path / "m"
    fit = ["fit", "digits", *LENET, "--epochs", EPOCHS, "--out", out]
    slimzoo(*fit, meanwhile=send_in_training(out, signal.SIGTERM)).fails(143, "interrupted", "slimzoo resume")
    assert not out.exists()
    # the machine dies while it goes on: no handler runs, and it goes on again all the same
    stage = next((tmp_path / "m.partial" / "checkpoints").glob("step-*")).name

    def die_later(process):
        deadline = time.monotonic() + 60
        while [p.name for p in (tmp_path / "m.partial" / "checkpoints").glob("step-*")] in ([stage], []):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process, signal.SIGKILL)

    assert slimzoo("resume", f"{out}.partial", meanwhile=die_later).code == -signal.SIGKILL
    assert not out.exists()
    assert slimzoo("resume", out).code == 0
    assert weights(out) == weights(model)


def test_ctrl_c_before_there_is_anything_to_keep(slimzoo, tmp_path):
    def at_once(process):
        while not (tmp_path / "m.partial" / "run.json").exists():
            time.sleep(0.0005)
        os.kill(process, signal.SIGINT)

    done = slimzoo("fit", "digits", *LENET, "--epochs", "50", "--out", tmp_path / "m", meanwhile=at_once)
    assert done.code == 130
    assert done.err.count("\n") == 1
    # the signal comes while images are read, or in the first steps, which it then waits for
    assert ("nothing was written" in done.err) == (list(tmp_path.iterdir()) == [])
    assert ("slimzoo resume" in done.err) == (tmp_path / "m.partial").exists()
    assert not (tmp_path / "m").exists()
