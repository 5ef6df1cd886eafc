"""Downloads from a server of our own, in a thread: whole, in parts, cut, wrong, absent, forbidden."""

import hashlib
import logging
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zoo.console import run
from zoo.errors import Interrupted, SlimzooError
from zoo.pretrained import download

CONTENT = bytes(range(256)) * 12_000  # 3.07 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MEGABYTE = 1 << 20


@dataclass
class Site:
    """A file and how its server behaves."""

    url: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    cut_after: int | None = None  # bytes of an answer; then the connection is closed
    seconds: float = 0.0  # before each answer
    asked: list[str | None] = field(default_factory=list)  # the Range of each GET


@pytest.fixture
def site():
    it = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200 if self.path == "/weights.pth" else 404)
            self.end_headers()

        def do_GET(self):
            time.sleep(it.seconds)
            span = self.headers["Range"]
            it.asked.append(span)
            if self.path != "/weights.pth":
                self.send_error(404)
                return
            start = int(span.removeprefix("bytes=").rstrip("-")) if span and it.ranges else 0
            if start and start >= len(it.content):
                self.send_error(416)
                return
            body = it.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: it.cut_after])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    it.url = f"http://127.0.0.1:{server.server_port}/weights.pth"
    yield it
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "hub" / "weights.pth"


def left_in(folder: Path) -> list[Path]:
    """All but the lock, for which somebody may be waiting."""
    return [each for each in folder.iterdir() if each.suffix != ".lock"]


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def test_a_whole_file_says_first_what_comes_and_how_large_it_is(site, path, caplog):
    told = []
    download.download(site.url, path, sha256=SHA256, progress=lambda *step: told.append(step))
    assert path.read_bytes() == CONTENT
    assert [record.getMessage() for record in caplog.records] == ["downloading weights.pth (3.1 MB)"]
    assert caplog.records[0].levelno == logging.WARNING  # seen without any configuration
    assert told[0] == ("downloading weights.pth", 2, 4, "1.0 MB of 3.1 MB")
    assert told[-1] == ("downloading weights.pth", 4, 4, "3.1 MB of 3.1 MB")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("digits", [8, 64])
def test_the_hash_may_be_its_first_digits(site, path, digits):
    download.download(site.url, path, sha256=SHA256[:digits])
    assert path.exists()


@pytest.mark.parametrize(("ranges", "said"), [(True, "(3.1 MB, 1.0 MB of it are here)"), (False, "(3.1 MB)")])
def test_it_goes_on_where_it_stopped_and_starts_over_where_the_server_cannot(site, path, caplog, ranges, said):
    site.ranges = ranges
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT[:MEGABYTE])
    download.download(site.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert site.asked == [f"bytes={MEGABYTE}-"]
    assert caplog.records[0].getMessage() == f"downloading weights.pth {said}"


def test_a_cut_line_leaves_what_came(site, path):
    site.cut_after = MEGABYTE
    for times in (1, 2):
        with pytest.raises(SlimzooError, match=r"was cut after .* MB of 3.1 MB\); .*weights.pth.part keeps") as caught:
            download.download(site.url, path, sha256=SHA256)
        assert "\n" not in str(caught.value)
        assert part_of(path).read_bytes() == CONTENT[: times * MEGABYTE]
    site.cut_after = None
    download.download(site.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert site.asked == [None, f"bytes={MEGABYTE}-", f"bytes={2 * MEGABYTE}-"]
    assert not part_of(path).exists()


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", CONTENT + b"?", b""])
def test_another_file_is_removed(site, path, content):
    site.content = content
    with pytest.raises(SlimzooError, match=rf"not {SHA256[:12]}... as recorded: http.* gave another file; it was remo"):
        download.download(site.url, path, sha256=SHA256)
    assert left_in(path.parent) == []


def test_a_part_that_is_all_there_is_only_checked(site, path):
    path.parent.mkdir()
    part_of(path).write_bytes(CONTENT)
    download.download(site.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    part_of(path).write_bytes(CONTENT + b"?")  # of another version of the file
    path.unlink()
    with pytest.raises(SlimzooError, match="it was removed"):
        download.download(site.url, path, sha256=SHA256)
    assert left_in(path.parent) == []


def test_an_absent_file_and_an_absent_server(site, path):
    with pytest.raises(SlimzooError, match=r"other.pth answered 404 Not Found; nothing was kept"):
        download.download(site.url.replace("weights", "other"), path, sha256=SHA256)
    with pytest.raises(SlimzooError, match=r"the download of weights.pth stopped \(.*refused"):
        download.download("http://127.0.0.1:9/weights.pth", path, sha256=SHA256)
    assert left_in(path.parent) == []


def test_a_full_disk_leaves_what_came(site, path):
    resource = pytest.importorskip("resource", reason="this system limits no files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE + 500, limits[1]))
    try:
        with pytest.raises(SlimzooError, match=r"the disk of .*hub is full: free some space; .* keeps 1.0 MB"):
            download.download(site.url, path, sha256=SHA256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert part_of(path).stat().st_size == MEGABYTE + 500
    download.download(site.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(("stopped", "code"), [(KeyboardInterrupt(), 130), (Interrupted("x", exit_code=143), 143)])
def test_an_interruption_leaves_what_came(site, path, stopped, code):
    def stop(*_):
        raise stopped

    with pytest.raises(Interrupted, match=r"interrupted; .*keeps 1.0 MB, and the next attempt goes on from") as caught:
        download.download(site.url, path, sha256=SHA256, progress=stop)
    assert caught.value.exit_code == code
    download.download(site.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_two_at_a_time_fetch_it_once(site, path):
    site.seconds = 0.2
    threads = [
        threading.Thread(target=download.download, args=(site.url, path), kwargs={"sha256": SHA256}) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert site.asked == [None]
    assert list(path.parent.iterdir()) == [path]


def test_two_processes_at_a_time_fetch_it_once(site, path):
    site.seconds = 0.5
    imports = "from pathlib import Path; from zoo.pretrained import download"
    code = f"{imports}; download.download({site.url!r}, Path({str(path)!r}), sha256={SHA256!r})"
    command = [sys.executable, "-c", code]
    for process in [subprocess.Popen(command, cwd=Path(download.__file__).parents[2]) for _ in range(2)]:
        assert process.wait(60) == 0
    assert path.read_bytes() == CONTENT
    assert site.asked == [None]
    assert list(path.parent.iterdir()) == [path]


def test_whether_an_address_can_be_reached(site, monkeypatch):
    assert download.reachable(site.url)
    assert download.reachable(site.url + "/nothing")  # it answered
    began = time.monotonic()
    assert not download.reachable("http://127.0.0.1:9/")
    assert time.monotonic() - began < 2


def test_a_name_that_nobody_resolves_takes_five_seconds_at_most(monkeypatch):
    def never(*_, **__):
        time.sleep(1)
        raise OSError("no such name")

    monkeypatch.setattr(download, "CONNECT_S", 0.2)
    monkeypatch.setattr("urllib.request.urlopen", never)
    began = time.monotonic()
    assert not download.reachable("http://anything/")
    assert time.monotonic() - began < 0.9


@pytest.mark.parametrize(("value", "offline"), [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)])
def test_offline_is_an_environment_variable(monkeypatch, value, offline):
    monkeypatch.delenv("SLIMZOO_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("SLIMZOO_OFFLINE", value)
    assert download.is_offline() == offline


def test_fit_offline_forbids_downloads_and_lists_what_there_is(monkeypatch, tmp_path, capsys):
    from compress.cli import app

    monkeypatch.setenv("SLIMZOO_OFFLINE", "0")  # what the command sets is undone after the test
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(download, "reachable", lambda address: pytest.fail("it asked the network"))
    with pytest.raises(SystemExit) as done:
        run(app, "slimzoo", ["fit", "digits", "--model", "resnet18", "--offline", "--out", str(tmp_path / "out")])
    assert done.value.code == 2
    assert capsys.readouterr().err == (
        "error: the weights of resnet18 (46.8 MB) are not on this machine and downloads are "
        f"forbidden; pretrained offline: {', '.join(known_offline())}\n"
    )
    assert not (tmp_path / "out").exists()


def known_offline():
    from zoo.pretrained.weights import offline_models

    found = offline_models()
    assert {"tf_efficientnet_lite0", "lenet5_caffe", "resnet20"} <= set(found)
    return found


def test_what_there_is_is_listed_without_heavy_imports():
    code = (
        "import sys, zoo.pretrained.weights as w; w.offline_models(); "
        "print(len(w.WEIGHTS), *{'torch', 'torchvision', 'timm', 'huggingface_hub'} & set(sys.modules))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert int(done.stdout) > 40  # a number, and no name after it
