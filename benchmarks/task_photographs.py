"""The photographs and scans of small_tasks.py: which picture of which package is of which class."""

from __future__ import annotations

import gzip
import io
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from task_sources import NotHere, Picture, from_file, qt_resources, unpacked, unzipped

MIN_SPREAD = 6.0  # of grey levels in a piece: clear sky and plain walls belong to any photograph
MIN_SIDE = 32  # of a texture: narrower ones are edges and frames


def astronomy() -> list[Picture]:
    """Stellarium's photographs of galaxies, nebulae and star clusters, by their kind in its catalogue."""
    folder = unpacked("stellarium-data") / "usr/share/stellarium/nebulae/default"
    kinds = _catalogue(folder / "catalog.dat")
    prefixes = {"m": "M", "n": "NGC", "ic": "IC", "u": "UGC", "p": "PGC", "sh2-": "Sh2", "lbn": "LBN", "rcw": "RCW"}
    pictures = []
    for path in sorted(folder.glob("*.png")):
        name = re.match(r"(sh2-|m|n|ic|u|p|lbn|rcw)(\d+)", path.stem)
        kind = kinds.get((prefixes[name[1]], int(name[2]))) if name else None
        label = _astronomical_class(*kind) if kind else ""
        if name and label:
            pictures.append(from_file(label, path, group=name[0]))
    return pictures


def _astronomical_class(kind: int, morphology: str) -> str:
    """Of an object of Stellarium's catalogue, or "" for the rare and the doubtful. Kinds: Nebula.hpp of Stellarium."""
    if kind in (0, 1):  # galaxies, the active ones too; morphology is de Vaucouleurs' or Hubble's
        plain = re.sub(r"^\(R'?\)", "", morphology)
        if re.match(r"d?E|S0|S(A|B|AB)(\(.*?\))?0", plain):
            return "elliptical_galaxy"
        return "spiral_galaxy" if plain.startswith("S") else ""
    if kind == 6 and morphology[:1] not in ("I", "V"):  # Trumpler's classes; the others are nebulae around a cluster
        return ""
    if kind == 16:  # a cluster in its nebula
        return "emission_nebula" if morphology.startswith("EN") else ""
    named = {3: "interacting_galaxies", 6: "open_cluster", 7: "globular_cluster", 11: "planetary_nebula"}
    return (named | {13: "reflection_nebula", 15: "emission_nebula", 17: "emission_nebula"}).get(kind, "")


def _catalogue(file: Path) -> dict[tuple[str, int], tuple[int, str]]:
    """{(catalogue, number): (kind, morphology)} of Stellarium's deep-sky catalogue of edition 3.16, a QDataStream."""
    blob, place = gzip.decompress(file.read_bytes()), 0

    def text() -> str:
        nonlocal place
        (length,) = struct.unpack_from(">I", blob, place)
        length = 0 if length == 0xFFFFFFFF else length
        place += 4 + length
        return blob[place - length : place].decode("utf-16-be")

    edition = (text(), text())[0]
    if edition != "3.16":
        raise NotHere(f"stellarium-data has a catalogue of edition {edition}; wanted 3.16")
    catalogues = ("NGC", "IC", "M", "", "", "Sh2", "", "RCW", "", "LBN", "", "", "PGC", "UGC")
    found: dict[tuple[str, int], tuple[int, str]] = {}
    while place < len(blob):
        (kind,) = struct.unpack_from(">I", blob, place + 36)  # after the number and four doubles
        place += 40
        morphology = text()
        place += 68  # sizes, angle, redshift, parallax, distance
        for catalogue, number in zip(catalogues, struct.unpack_from(">14I", blob, place), strict=True):
            if catalogue and number:
                found.setdefault((catalogue, number), (kind, morphology))
        place += 56
        text()
        place += 8
        for _ in range(7):
            text()
        place += 20
    return found


def landscapes() -> list[Picture]:
    """Endless Sky's photographs of places, by what their authors called them."""
    joined = {"badlands": "canyon", "beach": "coast", "sea": "coast", "dune": "desert", "water": "lake"}
    joined |= {"hills": "valley", "space": "indoors", "station": "indoors"}  # space stations, from inside
    kept = {*"canyon city coast desert fields indoors lake lava mountain snow valley".split()}  # not sky and fog
    pictures = []
    for path in sorted((unpacked("endless-sky-data") / "usr/share/games/endless-sky/images/land").glob("*.jpg")):
        word = re.match(r"[a-z]+", path.stem)
        label = joined.get(word[0], word[0]) if word else ""
        if label in kept:
            pictures.append(from_file(label, path))
    return pictures


STAMPS = {  # folder of Tux Paint's stamps: class; cartoons lie in folders of their own and are left out
    "animals/birds": "bird",
    "animals/fish": "fish",
    "animals/insects": "insect",
    "animals/mammals": "mammal",
    "animals/marsupials": "mammal",
    "food/fruit": "fruit",
    "food/vegetables": "vegetable",
    "hobbies/music": "instrument",
    "household/dishes": "household",
    "household/tools": "tool",
    "household": "household",
    "plants/flowers": "flower",
    "seasonal/halloween": "gravestone",
    "vehicles": "vehicle",
    "military/vehicles": "vehicle",
}
GCOMPRIS = "categorization explore_monuments explore_world_animals explore_farm_animals erase".split()  # activities
ANIMALS = {  # class: names of photographs
    "bird": """chicken duck gosling heron kingfisher northern_harrier owl penguin scarlet_macaw spoonbills swans
        toucan""",
    "insect": "bee butterfly caterpillar",
    "mammal": """alpaca bison calf camels cat cheetah cow dog dolphin flying_fox gibbon giraffe goat gorilla hedgehog
        horse jaguar kangaroo kitten koala lemur long_nosed_monkey macaque meerkats moose narwhal nubian_ibex panda pig
        pika polar_bear red_panda rhinoceros sheep squirrel""",
}
THINGS = {"fishes": "fish", "monuments": "monument", "tools": "tool"}  # folder of GCompris: class
# drawn, mirrored, or of no class above: a slug is no insect, and scissors are tools
LEFT_OUT = re.compile(
    r"cartoon|toys|plastic|halloween/(?!grave)|hedgehog|echidna|wheel|spoke|slug|louse|scissors|_(mirror|flip)\."
)


def things() -> list[Picture]:
    """Photographs of animals, food, tools and other things: Tux Paint's, cut out, and GCompris's, with backgrounds."""
    pictures = []
    stamps = unpacked("tuxpaint-stamps-default") / "usr/share/tuxpaint/stamps"
    for path in sorted(stamps.rglob("*.png")):
        place = path.relative_to(stamps).as_posix()
        folders = [folder for folder in STAMPS if place.startswith(folder + "/")]
        if folders and not LEFT_OUT.search(place):
            pictures.append(from_file(STAMPS[max(folders, key=len)], path))
    animals = {name: label for label, names in ANIMALS.items() for name in names.split()}
    for activity in GCOMPRIS:
        for place, content in _gcompris(activity):
            folder, name = place.removesuffix(".webp").rsplit("/", 2)[1:]
            if activity == "categorization":
                label = "windmill" if name.startswith("windmill") else THINGS.get(folder)
            else:
                label = "monument" if activity == "explore_monuments" else animals.get(name)
            if label:
                pictures.append(Picture(label, f"{activity}-{name}.webp", partial(bytes, content)))
    return pictures


def _gcompris(activity: str) -> Iterator[tuple[str, bytes]]:
    file = unpacked("gcompris-qt-data") / f"usr/share/gcompris-qt/rcc/{activity}.rcc"
    for place, content in qt_resources(file):
        if place.endswith(".webp"):
            yield place, content


def paintings() -> list[Picture]:
    """The pieces of GCompris's jigsaw puzzles, which are scans of paintings and prints; the class is the painting."""
    pictures = []
    for place, content in _gcompris("paintings"):
        name = place.rsplit("/", 1)[1]
        label = re.sub(r"[-_]([a-e]?\d)\.webp$", "", name).lower()
        pictures.append(Picture(label, name, partial(bytes, content)))
    return pictures


MATERIALS = {  # how the name of a texture of UFO: Alien Invasion begins: class
    "brick": "brick",
    "carpet": "carpet",
    "concrete": "concrete",
    "desert": "soil",
    "dirt": "soil",
    "door": "door",
    "grass": "grass",
    "metal": "metal",
    "rock": "rock",
    "pjrock": "rock",
    "roof": "roof",
    "tile": "tiles",
    "wallpaper": "wallpaper",
    "window": "window",
    "wood": "wood",
    "s_wood": "wood",
}
MAPS = re.compile(r"_(nm|gm|sm|norm|local|h|d|glow)$|_way_")  # of bumps, gloss and light; and turf laid over paths


def materials() -> list[Picture]:
    """Photographed surfaces of a game, by the material that their names begin with."""
    pictures = []
    folder = unzipped("ufoai-textures", "usr/share/games/ufoai/base/0textures.pk3")
    for path in sorted(folder.rglob("*")):
        words = [word for word in MATERIALS if path.stem.startswith(word)]
        if words and path.suffix in (".png", ".jpg") and not MAPS.search(path.stem) and _shorter(path) >= MIN_SIDE:
            series = re.sub(r"(?<=\d)[a-z]+$", "", path.stem)  # wood007 and wood007a are of one photograph
            place = f"{path.parent.name}-{path.name}"
            pictures.append(from_file(MATERIALS[max(words, key=len)], path, name=place, group=series))
    return pictures


def _shorter(path: Path) -> int:
    with Image.open(path) as image:
        return min(image.size)


def garments() -> list[Picture]:
    """Fashion-MNIST's test photographs of garments, 28 x 28, grey."""
    names = "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle_boot".split()
    folder = unpacked("dataset-fashion-mnist") / "usr/share/datasets/fashion-mnist"
    images, labels = (folder / f"t10k-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1"))
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    classes = np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)
    return [
        Picture(names[int(label)], f"{i:05}.png", partial(as_png, image))
        for i, (image, label) in enumerate(zip(pixels, classes, strict=True))
    ]


def as_png(pixels: np.ndarray) -> bytes:
    """An array of grey or colour as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PLASMA = "FallenLeaf Path Autumn summer_1am EveningGlow Grey Kite ColorfulCups OneStandsOut ColdRipple BytheWater"
MATE = "Garden Dune Wood Aqua TwoWings Storm GreenMeadow RainDrops Blinds LadyBird YellowFlower"
LXQT = "flowers fog after-the-rain Valendas appleflower cloud drop this-is-not-windows butterfly"
LOMIRI = """Picture_1A_by_freespace Wine_by_Jakkub_Mede greentock_by_Peter_Nerlich seeding_by_Clements_Engelhardt
    aitzgorri_by_Aitzol_Berasategi Dragonfly_by_Bolly friends_by_Aitzol_Berasategi sunset_by_Aitzol_Berasategi
    free_by_Peter_Nerlich picosdeeuropa_by_Aitzol_Berasategi Picture_0B_by_freespace life_by_Aitzol_Berasategi
    Bridge_by_Sander_Klootwijk Kleiber_by_Lukas_Baubkus"""
SAMPLES = """astronaut.png brick.png camera.png cell.png chelsea.png coffee.png coins.png grass.png gravel.png
    hubble_deep_field.jpg ihc.png motorcycle_left.png page.png retina.jpg rocket.jpg text.png"""


def wallpapers() -> list[Picture]:
    """Photographs of three desktops in 6 x 4 pieces; the class is the photograph."""
    plasma = unpacked("plasma-workspace-wallpapers") / "usr/share/wallpapers"
    found = [(name, f"{name}/contents/images/*") for name in PLASMA.split()]
    pictures = _in_pieces(plasma, found, across=6, down=4)
    for package, folder, names in (
        ("mate-backgrounds", "usr/share/backgrounds/mate/nature", MATE),
        ("lxqt-themes", "usr/share/lxqt/wallpapers", LXQT),
    ):
        found = [(name, f"{name}.*") for name in names.split()]
        pictures += _in_pieces(unpacked(package) / folder, found, across=6, down=4)
    return pictures


def views() -> list[Picture]:
    """Photographs of another desktop in 4 x 4 pieces, most of them larger; the class is the photograph."""
    pictures = []
    for package in ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04"):
        found = [(name.split("_by_")[0], f"{name}.jpg") for name in LOMIRI.split()]
        pictures += _in_pieces(unpacked(package) / "usr/share/backgrounds", found, across=4, down=4)
    return pictures


def samples() -> list[Picture]:
    """The sample pictures of scikit-image and scikit-learn in pieces of 64 pixels; the class is the picture."""
    import sklearn.datasets

    skimage = unpacked("python3-skimage") / "usr/lib/python3/dist-packages/skimage/data"
    pictures = _in_pieces(skimage, [(Path(name).stem, name) for name in SAMPLES.split()], side=64)
    sklearn_images = Path(sklearn.datasets.__file__).parent / "images"
    return pictures + _in_pieces(sklearn_images, [("china", "china.jpg"), ("flower", "flower.jpg")], side=64)


def _in_pieces(
    folder: Path, found: Sequence[tuple[str, str]], *, across: int = 0, down: int = 0, side: int = 0
) -> list[Picture]:
    """Pieces that share no pixel, of a grid of so many cells, or of 60 cells at most of a fixed side."""
    pictures = []
    for label, pattern in found:
        for path in sorted(folder.glob(pattern))[:1]:
            image = Image.open(path).convert("RGB")
            width, height = (side, side) if side else (image.width // across, image.height // down)
            places = [
                (left, top)
                for top in range(0, image.height - height + 1, height)
                for left in range(0, image.width - width + 1, width)
            ]
            for left, top in places[:: max(1, -(-len(places) // 60))] if side else places:
                piece = image.crop((left, top, left + width, top + height))
                if np.asarray(piece.convert("L")).std() >= MIN_SPREAD:
                    pictures.append(Picture(label.lower(), f"{left}-{top}.jpg", _as_jpeg(piece)))
    return pictures


def _as_jpeg(image: Image.Image) -> Callable[[], bytes]:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue
