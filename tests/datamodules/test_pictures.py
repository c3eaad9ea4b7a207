import numpy as np
import pytest
from PIL import ExifTags, Image

from datamodules import DataError, find_split, read_coco
from datamodules.pictures import read_picture


def save_as(root, mode: str):
    """Replaces picture a.png (id 3, 60 x 80) by a light orange one of the given mode."""
    colour = Image.new("RGB", (80, 60), (240, 120, 40))
    path = root / "images" / "a.png"
    if mode == "I;16":
        Image.fromarray(np.full((60, 80), 5000, np.uint16)).save(path)
    elif mode == "CMYK":
        colour.convert(mode).save(path, format="TIFF")
    else:
        colour.convert(mode).save(path)


def read_first(root):
    index = read_coco(*find_split(root, "train"))
    return read_picture(index, index.images[0])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "LA", "1"])
def test_every_mode_becomes_rgb(mode, content, write_folder):
    root = write_folder(content)
    save_as(root, mode)
    pixels = read_first(root)
    assert pixels.shape == (3, 60, 80)
    if mode in ("RGB", "RGBA", "CMYK"):
        assert pixels[:, 30, 40].tolist() == [240, 120, 40]
    if mode in ("L", "LA"):
        assert pixels[:, 30, 40].unique().tolist() == [147]  # 0.299 R + 0.587 G + 0.114 B


def test_sixteen_bits_are_refused_instead_of_clipped(content, write_folder):
    root = write_folder(content)
    save_as(root, "I;16")
    with pytest.raises(DataError, match=r"a\.png.*more than 8 bits.*convert"):
        read_first(root)


@pytest.mark.parametrize("kept", [0, 20, 2000])
def test_damaged_picture_names_file_and_entry(kept, content, write_folder):
    root = write_folder(content)
    path = root / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError) as caught:
        read_first(root)
    message = str(caught.value)
    assert str(path) in message
    assert "image 3 in " in message
    assert "instances_train.json" in message
    assert "copy it again, or remove" in message


def test_picture_of_another_size_than_annotated_is_refused(content, write_folder):
    root = write_folder(content)
    Image.new("RGB", (60, 80)).save(root / "images" / "a.png")
    with pytest.raises(DataError, match="is 60 x 80 pixels, but its entry says width 80"):
        read_first(root)


@pytest.mark.parametrize(
    ("size", "tag", "way_out"),
    [
        ((60, 80), 6, "its orientation tag is 6, .*write the rotation into the pixels, or export"),
        ((60, 80), 3, "correct the entry, or put back"),
        ((50, 80), 6, "correct the entry, or put back"),
    ],
)
def test_a_picture_that_was_annotated_as_it_is_shown_is_told_by_its_tag(
    size, tag, way_out, content, write_folder
):
    root = write_folder(content)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = tag
    Image.new("RGB", size).save(root / "images" / "a.png", format="JPEG", exif=exif)
    with pytest.raises(DataError, match=way_out):
        read_first(root)


def save_jpeg(path, mode: str, **options):
    """A JPEG of noise and a slope, in a picture file whatever it is called."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60, (60, 80, 3)) + np.arange(80)[None, :, None] * 2
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path, format="JPEG", **options)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_jpegs_are_read_to_the_same_pixels_as_by_pillow(mode, options, content, write_folder):
    root = write_folder(content)
    path = root / "images" / "a.png"
    save_jpeg(path, mode, **options)
    expected = np.array(Image.open(path).convert("RGB"))
    assert np.array_equal(read_first(root).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_jpeg_that_is_cut_off_is_refused_rather_than_grey_at_the_bottom(
    kept, content, write_folder
):
    root = write_folder(content)
    path = root / "images" / "a.png"
    save_jpeg(path, "RGB")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DataError, match="damaged"):
        read_first(root)
