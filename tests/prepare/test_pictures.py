"""If this breaks, a prepared picture is turned, of other colours or sizes, or lost."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from simclr_tf.prepare import pictures
from tests.support.scenes import file_of, scene

# Whether Pillow stores RGB without loss in the format.
LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
    "JPEG2000": {},
    "PPM": {},
    "TGA": {},
    "PCX": {},
    "SGI": {},
}
ENDINGS = {"JPEG2000": "jp2", "AVIF": "avif", "HEIF": "heic"}


def read(content: bytes, name: str = "a.jpg", size: int = 512, **settings):
    image, shape, note = pictures.read(content, name, size, **settings)
    assert image.mode in ("L", "RGB")
    return np.asarray(image.convert("RGB")).astype(int), shape, note


@pytest.mark.parametrize("form", LOSSLESS)
def test_every_format_is_read(form):
    image = scene(1)
    content = file_of(image, form, **LOSSLESS[form])
    pixels, shape, _ = read(content, f"a.{ENDINGS.get(form, form.lower())}")
    np.testing.assert_array_equal(pixels, np.asarray(image))
    assert shape == image.size


@pytest.mark.parametrize("form", ["JPEG", "GIF", "AVIF", "HEIF"])
def test_formats_with_loss_are_read(form):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = scene(1, (64, 48))
    pixels, _, _ = read(file_of(image, form), f"a.{ENDINGS.get(form, form.lower())}")
    assert np.abs(pixels - np.asarray(image)).mean() < 8


def test_the_content_and_not_the_name_tells_the_format():
    image = scene(1)
    for form in ("PNG", "WEBP", "TIFF"):
        content = file_of(image, form, **LOSSLESS[form])
        np.testing.assert_array_equal(read(content, "a.jpg")[0], np.asarray(image))


# The pixels, as a viewer shows them, from those that are stored, by the EXIF standard.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_pictures_are_upright(form, orientation):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    image = scene(2, (64, 48))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = file_of(image, form, exif=exif, **LOSSLESS.get(form, {"quality": 95}))
    pixels, shape, _ = read(stored)
    expected = TURNS[orientation](np.asarray(image)).astype(int)
    assert pixels.shape == expected.shape == (*shape[::-1], 3)
    assert np.abs(pixels - expected).mean() < 5


def test_metadata_that_are_no_exif_turn_nothing():
    content = file_of(scene(2), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff rubbish")
    assert read(content)[0].shape == (30, 40, 3)


def test_the_shorter_side_is_bounded_and_the_whole_picture_kept():
    image = scene(3, (400, 300))
    pixels, shape, _ = read(file_of(image, "JPEG", quality=95), size=60)
    assert shape == (400, 300) and pixels.shape == (60, 80, 3)
    expected = np.asarray(image.resize((80, 60), Image.Resampling.BOX)).astype(int)
    assert np.abs(pixels - expected).mean() < 3
    assert read(file_of(image), size=300)[0].shape == (300, 400, 3)
    assert read(file_of(scene(3, (900, 3))), size=60)[0].shape == (3, 900, 3)


def test_cmyk_is_read_as_pillow_reads_it():
    image = scene(4).convert("CMYK")
    expected = np.asarray(image.convert("RGB")).astype(int)
    np.testing.assert_array_equal(read(file_of(image, "TIFF"))[0], expected)
    assert np.abs(read(file_of(image, "JPEG", quality=95))[0] - expected).mean() < 8


def test_alpha_is_left_out_and_palettes_are_looked_up():
    image = scene(5)
    colours = np.asarray(image).astype(int)
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(np.zeros((30, 40), np.uint8)))
    np.testing.assert_array_equal(read(file_of(alpha))[0], colours)
    few = image.quantize(16)
    expected = np.asarray(few.convert("RGB")).astype(int)
    for settings in ({}, {"transparency": 3}, {"transparency": bytes(range(16))}):
        np.testing.assert_array_equal(read(file_of(few, **settings))[0], expected)
    gray = image.convert("LA")
    np.testing.assert_array_equal(
        read(file_of(gray))[0][..., 0], np.asarray(image.convert("L")).astype(int)
    )
    assert set(np.unique(read(file_of(image.convert("1")))[0])) == {0, 255}


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_the_upper_byte_of_16_bits_is_kept(form):
    levels = (np.asarray(scene(6))[..., 0].astype(np.uint16) << 8) + 77
    pixels, _, note = read(file_of(Image.fromarray(levels), form))
    np.testing.assert_array_equal(pixels[..., 0], levels >> 8)
    assert note == ""


def test_12_bits_are_told_and_stretched_on_request():
    levels = np.asarray(scene(6))[..., 0].astype(np.uint16) << 4
    content = file_of(Image.fromarray(levels))
    pixels, _, note = read(content)
    assert pixels.max() < 16 and note == "uses 12 of 16 bits: if all do, give --bit_depth=12"
    pixels, _, note = read(content, bit_depth=12)
    np.testing.assert_array_equal(pixels[..., 0], levels >> 4)
    assert note == ""
    with pytest.raises(pictures.Unreadable, match="beyond 10 bits"):
        read(content, bit_depth=10)


def test_floats_are_refused_as_their_range_is_not_known():
    content = file_of(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")
    with pytest.raises(pictures.Unreadable, match="floats"):
        read(content)


def swapped_profile() -> bytes:
    """The profile of sRGB with red and blue exchanged, and another name."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, other in (
        (b"rXYZ", b"bXYZ"),
        ("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")),
    ):
        profile = profile.replace(name, b"####").replace(other, name).replace(b"####", other)
    return profile


def test_colours_are_converted_by_the_profile():
    image = scene(7)
    pixels, _, _ = read(file_of(image, icc_profile=swapped_profile()))
    assert np.abs(pixels - np.asarray(image)[..., ::-1]).max() <= 2
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"none"):
        pixels, _, _ = read(file_of(image, icc_profile=profile))
        np.testing.assert_array_equal(pixels, np.asarray(image))


def test_lab_is_converted():
    image = scene(7)
    profiles = (ImageCms.createProfile(name) for name in ("sRGB", "LAB"))
    lab = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    pixels, _, _ = read(file_of(lab, "TIFF"))
    assert np.abs(pixels - np.asarray(image)).mean() < 4


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_may_lack_its_end_marker_and_nothing_else(progressive):
    content = file_of(scene(8, (200, 150)), "JPEG", progressive=progressive)
    expected = read(content)[0]
    np.testing.assert_array_equal(read(content[:-2])[0], expected)
    np.testing.assert_array_equal(read(content + b"\0" * 100)[0], expected)
    if not progressive:  # a later scan that is missing takes away detail, and not rows
        with pytest.raises(pictures.Unreadable, match="a JPEG file, cut short"):
            read(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        (b"", "a.jpg", "an empty file"),
        (b"<!DOCTYPE html><html>", "a.jpg", "an HTML page named .jpg"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "a.jpg", "a HEIC file named .jpg"),
        (b"%PDF-1.4", "a.png", "a PDF file named .png"),
        (b"\0\0\0\x18ftypqt  ", "a.heic", r"a video \(MP4 or QuickTime\) named .heic"),
        (b"plain text", "a.jpg", "a text file named .jpg"),
        (b"\xff\xd8\xff\xe0 nothing", "a.jpg", "damaged at its beginning|cut short"),
        (file_of(scene(1))[:200], "a.png", "a PNG file, cut short"),
        (bytes(4) + b"ftypavif" + bytes(60), "a.jpg", "an AVIF file named .jpg|beginning"),
        (file_of(scene(1))[:200], "a.jpg", "a PNG file named .jpg, cut short"),
        (file_of(scene(1), "TIFF")[:-400], "a.tif", "a TIFF file, cut short"),
    ],
)
def test_reasons_are_words(content, name, reason):
    with pytest.raises(pictures.Unreadable, match=reason):
        pictures.read(content, name, 512)


def test_programs_that_other_formats_would_start_are_not_started():
    with pytest.raises(pictures.Unreadable, match="a PostScript file"):
        pictures.read(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "a.eps", 9
        )


def test_more_pixels_than_pillow_allows_are_refused():
    content = file_of(Image.new("1", (20_000, 20_000)), "PNG")
    with pytest.raises(pictures.Unreadable, match="more than 179 megapixels"):
        pictures.read(content, "a.png", 512)


def test_pictures_longer_than_a_jpeg_may_be_are_refused():
    content = file_of(Image.new("L", (70_000, 3)))
    with pytest.raises(pictures.Unreadable, match="70000 x 3 pixels: too long"):
        read(content)
    content = file_of(Image.new("1", (70_000, 600)))
    assert read(content, size=100)[0].shape == (100, 11_667, 3)


def test_small_pictures_are_stored_without_loss_and_others_as_jpeg():
    small, large = scene(9, (128, 128)), scene(9, (200, 128))
    stored = Image.open(io.BytesIO(pictures.encoded(small)))
    assert stored.format == "PNG"
    np.testing.assert_array_equal(np.asarray(stored), np.asarray(small))
    stored = Image.open(io.BytesIO(pictures.encoded(large)))
    assert stored.format == "JPEG"
    difference = np.asarray(stored).astype(int) - np.asarray(large)
    assert np.abs(difference).mean() < 2
