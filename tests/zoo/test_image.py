"""load_image against pixels known beforehand, and against files that are not what they claim."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image

from zoo import image as image_module
from zoo.image import ImageError, load_image

ORIENTATION = 0x0112  # EXIF 2.3, table 4
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(picture, fmt="PNG", **options):
    file = io.BytesIO()
    picture.save(file, fmt, **options)
    return file.getvalue()


def rgb(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rgb_comes_through_unchanged():
    pixels = rgb(7, 5)
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(pixels))), pixels)


def test_path_and_bytes_are_the_same_image(tmp_path):
    content = encoded(Image.fromarray(rgb(4, 4)), "JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    np.testing.assert_array_equal(load_image(tmp_path / "a.jpg"), load_image(content))


@pytest.mark.parametrize("fmt", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(fmt):
    values = np.array([[0, 128, 129, 257], [1000, 32768, 65406, 65535]], dtype=np.uint16)
    expected = [[round(int(v) / 257) for v in row] for row in values]  # 65535 = 255 x 257
    found = load_image(encoded(Image.fromarray(values), fmt))
    assert found.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], expected)


# how a viewer turns what is stored, by EXIF 2.3: where the stored first row and first column belong
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],  # mirrored left and right
    3: lambda a: a[::-1, ::-1],  # upside down
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),  # row 0 is the left side, column 0 the top
    6: lambda a: np.rot90(a, -1),  # row 0 is the right side, column 0 the top
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),  # row 0 is the left side, column 0 the bottom
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied(orientation):
    stored = rgb(3, 5)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found = load_image(encoded(Image.fromarray(stored), "PNG", exif=exif))
    np.testing.assert_array_equal(found, UPRIGHT[orientation](stored))


def test_exif_rotated_jpeg_is_the_turned_jpeg():
    plain = Image.fromarray(np.kron(rgb(2, 3), np.ones((8, 8, 1), dtype=np.uint8)))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    rotated, straight = encoded(plain, "JPEG", exif=exif), encoded(plain, "JPEG")
    np.testing.assert_array_equal(load_image(rotated), np.rot90(load_image(straight), -1))
    assert load_image(rotated).shape == (24, 16, 3)


def test_transparency_is_laid_over_the_background():
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 0] = 255  # red, whatever the alpha
    rgba[0, :, 3] = (0, 102, 255)
    content = encoded(Image.fromarray(rgba))
    over_white = [WHITE, (255, 153, 153), RED]  # alpha 102 = 0.4
    np.testing.assert_array_equal(load_image(content)[0], over_white)
    over_blue = [BLUE, (102, 0, 153), RED]
    np.testing.assert_array_equal(load_image(content, background=BLUE)[0], over_blue)


def tiff(bands, extra=(), photometric=2, planar=1, order="<"):
    """(H, W, S) as an uncompressed TIFF 6.0 in one strip, or a strip a band."""
    height, width, samples = bands.shape
    data = (bands if planar == 1 else bands.transpose(2, 0, 1)).astype(bands.dtype.newbyteorder(order)).tobytes()
    strips = 1 if planar == 1 else samples
    size = len(data) // strips
    entries = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [8 * bands.dtype.itemsize] * samples),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [8 + i * size for i in range(strips)]),
        (277, 3, [samples]),
        (278, 4, [height]),
        (279, 4, [size] * strips),
        (284, 3, [planar]),
    ]
    entries += [(338, 3, list(extra))] if extra else []
    end = 8 + len(data) + 2 + 12 * len(entries) + 4
    directory, beyond = struct.pack(order + "H", len(entries)), b""
    for tag, kind, values in entries:
        packed = struct.pack(order + {3: "H", 4: "I"}[kind] * len(values), *values)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(order + "I", end + len(beyond))
        beyond += packed if len(packed) > 4 else b""
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + place
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, 8 + len(data)) + data + directory + bytes(4) + beyond


def reflectances(infrared, seed=0):
    """Dark blue with some noise, and the near infrared of water, of forest or of anything else."""
    rng = np.random.default_rng(seed)
    return np.clip(np.array([30, 50, 80, infrared]) + rng.integers(-9, 10, (24, 24, 4)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("infrared", [0, 3, 90, 180, 250])
@pytest.mark.parametrize("marked", [(), (0,), (1,), (2,)])
@pytest.mark.parametrize("planar", [1, 2])
def test_near_infrared_is_not_laid_over_white(tmp_path, infrared, marked, planar):
    (tmp_path / "field.tif").write_bytes(tiff(reflectances(infrared), marked, planar=planar))
    said = r"4 bands, of which one is neither .* in_channels=4 from arrays"
    said = "cannot be decoded" if (planar, marked) == (2, (1,)) else said  # Pillow knows no such layout
    with pytest.raises(ImageError, match=rf"field\.tif: {said}"):
        load_image(tmp_path / "field.tif")


@pytest.mark.parametrize(
    ("samples", "photometric", "marked", "said"),
    [
        (5, 2, (0, 0), "5 bands, of which 2"),
        (5, 2, (2, 0), "5 bands, of which 2"),
        (8, 2, (0, 0, 0, 0, 0), "8 bands, of which 5"),
        (5, 1, (0, 0, 0, 0), "5 bands, of which 4"),
        (2, 1, (0,), "2 bands, of which one"),
        (2, 1, (2,), "2 bands, of which one"),
        (5, 5, (0,), "5 bands, of which one"),  # four inks and a spot colour
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_no_band_is_dropped_in_silence(samples, photometric, marked, said, dtype):
    bands = np.random.default_rng(1).integers(40, 200, (9, 9, samples)).astype(dtype)
    for order in "<>":
        with pytest.raises(ImageError, match=said):
            load_image(tiff(bands, marked, photometric, order=order))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cut_outs_of_a_tiff_are_laid_over_white(dtype):
    rng, most = np.random.default_rng(2), np.iinfo(dtype).max
    bands = rng.integers(0, most, (16, 16, 4), endpoint=True).astype(dtype)
    bands[..., 3] = most
    bands[:4, :, 3] = 0
    bands[4, :, 3] = most // 2  # the edge
    seen = bands[..., :3] // (257 if dtype == np.uint16 else 1)
    found = load_image(tiff(bands, (2,))).astype(int)
    assert (found[:4] == 255).all()
    assert np.abs(found[4] - (seen[4].astype(int) + 255) / 2).max() <= 2
    assert np.abs(found[5:] - seen[5:].astype(int)).max() <= 1
    bands[..., 3] = most
    assert np.abs(load_image(tiff(bands, (2,))).astype(int) - seen).max() <= 1


def test_pixels_that_pillow_does_not_read_are_named():
    rgb32 = np.zeros((4, 4, 3), dtype=np.uint32)
    with pytest.raises(ImageError, match="a TIFF of 3 bands of 32 bits, which is not read; save it as 8-bit RGB"):
        load_image(tiff(rgb32))


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "an empty file"), (b"<!DOCTYPE html><html>404</html>", "a web page"), (b"%PDF-1.7 ...", "a PDF")],
)
def test_what_a_file_is_instead_is_said(tmp_path, content, said):
    (tmp_path / "cat.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=rf"cat\.jpg: not an image in one of the formats .* but {said}"):
        load_image(tmp_path / "cat.jpg")


def test_avif_is_read(tmp_path):
    pixels = np.full((20, 28, 3), (200, 40, 90), dtype=np.uint8)
    (tmp_path / "a.avif").write_bytes(encoded(Image.fromarray(pixels), "AVIF", quality=95))
    assert np.abs(load_image(tmp_path / "a.avif").astype(int) - pixels).max() <= 4


def test_heic_is_read_or_its_extra_is_named(tmp_path):
    path = tmp_path / "phone.heic"
    if not image_module.HEIC_READABLE:
        path.write_bytes(struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic")
        with pytest.raises(ImageError, match=r"phone\.heic: not .* but HEIC, .*; pip install 'slimzoo\[heic\]'"):
            load_image(path)
        return
    import pillow_heif

    pixels = np.full((32, 48, 3), (200, 40, 90), dtype=np.uint8)
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, quality=95)
    assert np.abs(load_image(path).astype(int) - pixels).max() <= 6


def palette_image():
    picture = Image.new("P", (2, 1))
    picture.putpalette([*RED, *BLUE])
    picture.putdata([1, 0])
    return picture


def test_palette_is_looked_up():
    np.testing.assert_array_equal(load_image(encoded(palette_image()))[0], [BLUE, RED])


def test_transparent_palette_entry_shows_the_background():
    np.testing.assert_array_equal(load_image(encoded(palette_image(), transparency=1))[0], [WHITE, RED])


def test_grey_with_alpha():
    pixels = np.array([[[0, 0], [0, 255]]], dtype=np.uint8)
    np.testing.assert_array_equal(load_image(encoded(Image.fromarray(pixels)))[0], [WHITE, (0, 0, 0)])


def test_one_bit_image_is_black_and_white():
    picture = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    np.testing.assert_array_equal(load_image(encoded(picture))[0], [(0, 0, 0), WHITE])


def test_cmyk_is_converted():
    # inks are subtracted from white: magenta and yellow leave red, cyan and magenta blue
    inks = np.array([[[0, 255, 255, 0], [255, 255, 0, 0], [0, 0, 0, 0], [0, 0, 0, 255]]], dtype=np.uint8)
    content = encoded(Image.frombytes("CMYK", (4, 1), inks.tobytes()), "TIFF")
    np.testing.assert_array_equal(load_image(content)[0], [RED, BLUE, WHITE, (0, 0, 0)])


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, BLUE)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (load_image(content) == RED).all()


@pytest.mark.parametrize(
    ("least", "shape"),
    [
        (None, (400, 640)),
        ((201, 320), (400, 640)),
        ((200, 320), (200, 320)),
        ((2, 161), (200, 320)),
        ((100, 160), (100, 160)),
        ((50, 80), (50, 80)),
        ((1, 1), (50, 80)),  # an eighth is the least that a decoder gives
        ((9000, 1), (400, 640)),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_at_the_least_size_that_is_enough(least, shape, progressive):
    """At which it is the mean of what is left out, as a person would see it from further away."""
    seen = np.random.default_rng(0).integers(40, 216, (25, 40, 3)).astype(np.uint8)
    stored = Image.fromarray(seen).resize((640, 400), Image.Resampling.BICUBIC)
    content = encoded(stored, "JPEG", quality=95, progressive=progressive)
    found = load_image(content, least=least)
    assert found.shape[:2] == shape
    blocks = load_image(content).reshape(shape[0], 400 // shape[0], shape[1], 640 // shape[1], 3).mean((1, 3))
    assert np.abs(found - blocks).mean() < 1.5


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_enough_is_meant_of_the_picture_as_it_is_seen(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(Image.fromarray(rgb(160, 640)), "JPEG", exif=exif)
    across, along = load_image(content, least=(40, 160)).shape[:2], load_image(content, least=(160, 40)).shape[:2]
    assert (across, along) == (((40, 160), (160, 640)) if orientation < 5 else ((640, 160), (160, 40)))


def test_other_formats_have_no_lesser_size(tmp_path):
    pixels = rgb(400, 300)
    for fmt in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(load_image(encoded(Image.fromarray(pixels), fmt), least=(8, 8)), pixels)
    assert load_image(encoded(Image.fromarray(pixels), "WEBP"), least=(8, 8)).shape == (400, 300, 3)
    grey, cmyk = (encoded(Image.fromarray(pixels).convert(mode), "JPEG") for mode in ("L", "CMYK"))
    assert load_image(grey, least=(50, 37)).shape == load_image(cmyk, least=(50, 37)).shape == (50, 38, 3)


def test_a_damaged_jpeg_is_so_at_any_size(tmp_path):
    content = encoded(Image.fromarray(rgb(640, 640)), "JPEG")
    with pytest.raises(ImageError, match="truncated or damaged"):
        load_image(content[: len(content) // 2], least=(80, 80))


def test_truncated_jpeg_is_named(tmp_path):
    path = tmp_path / "half.jpg"
    content = encoded(Image.fromarray(rgb(64, 64)), "JPEG")
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"half\.jpg: truncated or damaged") as caught:
        load_image(path)
    assert caught.value.exit_code == 3


def test_text_file_is_named(tmp_path):
    path = tmp_path / "cat.png"
    path.write_text("this is a cat")
    with pytest.raises(ImageError, match=r"cat\.png: not an image in one of the formats JPEG, PNG"):
        load_image(path)


def test_missing_file_and_directory_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: No such file"):
        load_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="Is a directory"):
        load_image(tmp_path)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    content = encoded(Image.new("1", (8000, 7000)))
    assert len(content) < 100_000
    with pytest.raises(ImageError, match="56 megapixels, more than 50"):
        load_image(content)
    monkeypatch.setattr(image_module, "MAX_PIXELS", 11)
    assert load_image(encoded(Image.new("RGB", (1, 11)))).shape == (11, 1, 3)
    with pytest.raises(ImageError, match="scale it down"):
        load_image(encoded(Image.new("RGB", (12, 1))))


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, "float"), (np.int32, "32-bit")])
def test_pixels_without_a_known_range_are_refused(tmp_path, dtype, kind):
    path = tmp_path / "depth.tif"
    Image.fromarray(np.full((2, 2), 200, dtype=dtype)).save(path)
    with pytest.raises(ImageError, match=rf"depth\.tif: {kind} pixels, whose range is not known"):
        load_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow tells of damaged metadata before it fails
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_damaged_bytes_give_an_image_or_an_image_error(fmt):
    content, rng = encoded(Image.fromarray(rgb(12, 9)), fmt), random.Random(0)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(content[: rng.randrange(len(content))] if rng.random() < 0.3 else content)
        for _ in range(rng.randint(1, 5) if damaged else 0):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            found = load_image(bytes(damaged))
        except ImageError:
            outcomes.add("error")
        else:
            assert found.ndim == 3
            assert found.dtype == np.uint8
            outcomes.add("image")
    assert "error" in outcomes


def test_truncated_png_header_is_an_image_error():
    header = bytearray(encoded(Image.new("RGB", (2, 2))))
    header[11] = 5  # the length of IHDR, which is 13 in every PNG (RFC 2083, 4.1.1)
    with pytest.raises(ImageError, match=r"image of \d+ bytes"):
        load_image(bytes(header))


@pytest.mark.parametrize("least", [None, (60, 60)])
@pytest.mark.parametrize(("height", "width"), [(3000, 400), (300, 4000), (30, 40), (60000, 60000), (0, 0)])
def test_a_jpeg_whose_header_lies_about_its_size(height, width, least):
    """It is what it says, as every viewer shows it, at its own size or a part; or refused before it is decoded."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(pixels), "JPEG")
    at = content.index(b"\xff\xc0") + 5  # the frame's header: precision, then height and width
    lying = content[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + content[at + 4 :]
    if height * width in (0, 60000**2):
        with pytest.raises(ImageError):
            load_image(lying, least=least)
    else:
        found = load_image(lying, least=least).shape
        assert found[0] * width == pytest.approx(found[1] * height, rel=0.1)
        assert found[:2] == (height, width) if least is None else found[0] <= height
