"""Where the pictures of small_tasks.py come from: Debian's packages, and the archives inside them.

A package is fetched once, by `apt-get download`, checked and unpacked into slimzoo's cache, with no right to install
anything. What cannot be had raises NotHere, so that the other tasks are made all the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.disk import cache_directory

DEBIAN = {  # package: version, and SHA-256 of its file
    "dataset-fashion-mnist": (
        "0.0~git20200523.55506a9-1",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    ),
    "endless-sky-data": ("0.9.8-1.2", "e45835e05a11e84bb1a890a0ded390246a53b8318f21a25925aa70fa54f80c13"),
    "fonts-noto-core": ("20201225-1", "58f4f0bb6720f919f92096b3508e1412a0f1544424ade6c5b5bf1eb694dd64ba"),
    "gcompris-qt-data": ("3.1-2", "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f"),
    "lomiri-wallpapers-16.04": ("20.04.0-2", "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab"),
    "lomiri-wallpapers-20.04": ("20.04.0-2", "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709"),
    "lxqt-themes": ("1.2.0-1", "d518df36b515b09d36cb00b12645dd8ce170bb82bb0966297741905ce3edc8e1"),
    "mate-backgrounds": ("1.26.0-1", "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04"),
    "openclipart-png": ("1:0.18+dfsg-19", "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"),
    "plasma-workspace-wallpapers": ("4:5.27.5-2", "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b"),
    "pysiogame": ("4.20.01-1", "6b22766dfd8ef3a046c2665fe2598ac8a1ecee3d331bda38accf53de65bc59bf"),
    "python3-skimage": ("0.19.3-8", "728d88c3e3440f1f3712de0805dc834d29248ff07e1eec8c0f3da07606f752f9"),
    "stellarium-data": ("0.22.2-1", "45aaebf39a814acbd6dcccea058c2f5651bcb5635599da03a215feeb51f4d5a5"),
    "sweethome3d-furniture": ("1.8-1", "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668"),
    "tuxpaint-stamps-default": ("2022.06.04-1", "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34"),
    "ufoai-textures": ("2.5-2", "51c9c6a778249a3fa432c81c8c30ac5675ae5a1e675a33b0ce04545753d3218c"),
    "unicode-data": ("15.0.0-1", "5efef23bbb1c6a133ecbdd63a2cfa07159ccacf5466a49e2426101c5ecd691fc"),
}


class NotHere(Exception):
    """A source that cannot be had here; the message says why."""


@dataclass(frozen=True)
class Picture:
    """One picture of a task, not read yet.

    Attributes:
        label: its class.
        name: of its file, unlike any other's of the class; what it ends with says how it is encoded.
        read: gives the file's content.
        group: pictures of one group are never divided among the parts; "" for one alone.
        part: "train" or "test" where it may be in no other.
    """

    label: str
    name: str
    read: Callable[[], bytes]
    group: str = ""
    part: str = ""


def from_file(label: str, path: Path, *, name: str = "", group: str = "", part: str = "") -> Picture:
    """A picture as it lies on the disk."""
    return Picture(label, name or path.name, path.read_bytes, group, part)


def shared_data(name: str) -> Path:
    """A file or folder of the data that tests share (SLIMZOO_DATA)."""
    path = Path(os.environ.get("SLIMZOO_DATA", Path(__file__).parents[2] / "shared/data"), name)
    if not path.exists():
        raise NotHere(f"no {name} in the folder that SLIMZOO_DATA names")
    return path


def unpacked(package: str) -> Path:
    """The root of an unpacked Debian package; fetched where it is not in the cache.

    A version other than the recorded one is taken, and said so.

    Raises:
        NotHere: no apt-get, no such package, or a file that is not the recorded one.
    """
    version, sha256 = DEBIAN[package]
    root = cache_directory() / "small_tasks" / package
    if root.is_dir():
        return root
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NotHere(f"{package} is a Debian package, and there is no apt-get here")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        file = _fetch(package, version, Path(folder))
        if f"_{version.replace(':', '%3a')}_" not in file.name:
            print(f"{file.name} is another version than {version}, which the tasks were written for", flush=True)
        elif hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            raise NotHere(f"{file.name} is not the file that was recorded: its SHA-256 differs")
        fresh = Path(folder, "root")
        subprocess.run(["dpkg-deb", "-x", file, fresh], check=True)
        if not root.is_dir():  # which another process may have made meanwhile
            fresh.rename(root)
    return root


def _fetch(package: str, version: str, folder: Path) -> Path:
    for wanted in (f"{package}={version}", package):
        done = subprocess.run(["apt-get", "download", wanted], cwd=folder, capture_output=True, text=True)
        files = list(folder.glob("*.deb"))
        if done.returncode == 0 and files:
            return files[0]
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    raise NotHere(f"apt-get download {package}: {reason}; try apt-get update")


def unzipped(package: str, archive: str) -> Path:
    """The members of a zip file in a package, laid out beside it in the cache."""
    root = unpacked(package)
    laid = root / "unzipped"
    if not laid.is_dir():
        partial = root / "unzipped.partial"
        with zipfile.ZipFile(root / archive) as file:
            file.extractall(partial)
        partial.rename(laid)
    return laid


def qt_resources(file: Path) -> Iterator[tuple[str, bytes]]:
    """(path, content) of what a compiled Qt resource file holds.

    The format is that of Qt's rcc, versions 1 to 3: a header, a tree of nodes of 14 or 22 bytes, names, and data each
    after its length. Contents packed by zstd are refused: nothing here reads them.
    """
    blob = file.read_bytes()
    magic, version, tree, data, names = struct.unpack_from(">4sIIII", blob)
    if magic != b"qres" or version not in (1, 2, 3):
        raise NotHere(f"{file.name} is no Qt resource file of a known version")
    size = 22 if version >= 2 else 14

    def walk(node: int, above: str) -> Iterator[tuple[str, bytes]]:
        place = tree + node * size
        name, flags = struct.unpack_from(">IH", blob, place)
        path = above
        if node:
            (length,) = struct.unpack_from(">H", blob, names + name)
            start = names + name + 6  # after the length and a hash
            path = f"{above}/{blob[start : start + 2 * length].decode('utf-16-be')}"
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">II", blob, place + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        if flags & 4:
            raise NotHere(f"{file.name} is packed by zstd")
        (offset,) = struct.unpack_from(">I", blob, place + 10)
        (length,) = struct.unpack_from(">I", blob, data + offset)
        start = data + offset + 4
        content = blob[start : start + length]
        yield path[1:], zlib.decompress(content[4:]) if flags & 1 else content

    return walk(0, "")
