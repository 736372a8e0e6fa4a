"""Read picture files of any kind as 8-bit RGB, and maps as the values that they hold, both turned as EXIF says.

* Integers of 8 bits are taken as they are. 16-bit grey is scaled from 0..65535 to 0..255 (12-bit TIFF from 0..4095),
  float grey from 0..1. Other values have no known white: such files are refused.
* Transparent pixels show white, as in a viewer on a white page.
* Of several frames or pages the first is read.
* Pictures of more than twice ``PIL.Image.MAX_IMAGE_PIXELS`` pixels (179 million by default) are refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from raptor.errors import SampleError

LEAVE_OUT = "replace or remove the file, or leave out such files with data.on_error=skip"
# formats that Pillow names but does not decode by itself; .eps and .ps would run Ghostscript
NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
MIDDLE = 0.5 / 255  # half a step of 8 bits: what rounding allows beyond the ends of 0..1
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BITS, WHITE_IS_ZERO, PHOTOMETRIC = 258, 0, 262  # of TIFF


@lru_cache
def picture_extensions() -> frozenset[str]:
    """Return the extensions of all formats that Pillow decodes here, in lower case, each with its dot."""
    Image.init()
    readable = set(Image.OPEN) - set(NOT_DECODED)
    return frozenset(ext for ext, name in Image.registered_extensions().items() if name in readable)


def read_picture(path: str | Path) -> Image.Image:
    """Read a picture as 8-bit RGB.

    Parameters
    ----------
    path
        A file of any format that Pillow decodes.

    Raises
    ------
    SampleError
        If the file cannot be read, naming it.
    """
    with _naming(path, "picture"):
        image = _upright(path)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = _to_8_bits(image, path)
        elif image.has_transparency_data:
            page = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(page, image.convert("RGBA"))
        return image.convert("RGB")


def read_map(path: str | Path, kind: str, *, palette: bool) -> np.ndarray:
    """Read the values of a file that holds one value for each pixel, ``(H, W)``.

    Parameters
    ----------
    path
        A file of any format that Pillow decodes.
    kind
        What the file holds, for messages: ``labels`` or ``depth``.
    palette
        Whether a palette picture holds such values, its indices.

    Raises
    ------
    SampleError
        If the file cannot be read, or holds several channels or a palette.
    """
    with _naming(path, kind):
        image = _upright(path)
    if len(image.getbands()) > 1 or (image.mode == "P" and not palette):
        channels = "a palette" if image.mode == "P" else f"{len(image.getbands())} ({image.mode})"
        raise SampleError.of(kind, path, f"one channel of values, the file has {channels}", LEAVE_OUT)
    return np.asarray(image)


@contextmanager
def _naming(path: str | Path, kind: str) -> Iterator[None]:
    """Turn any error into one that names the file: decoders raise all sorts where a file is damaged."""
    try:
        yield
    except SampleError:
        raise
    except Exception as error:
        raise SampleError.of(kind, path, f"a file that Pillow decodes ({_reason(path, error)})", LEAVE_OUT) from error


def _upright(path: str | Path) -> Image.Image:
    """Decode a file and turn it as EXIF says."""
    # Pillow warns from half of the limit on, without a name; such pictures are fine
    with warnings.catch_warnings(), Path(path).open("rb") as file:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file)
        image.load()
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.format = image.format
    return turned


def _reason(path: str | Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).is_file() and not Path(path).stat().st_size
        return "the file is empty" if empty else "its content is none of the formats that Pillow reads"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _to_8_bits(image: Image.Image, path: str | Path) -> Image.Image:
    """Scale grey of 16 bits or float to 8 bits by the range of its kind, whatever the picture uses of it."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "F":
        share, expected = values.astype(np.float64), "floats from 0 to 1"
    else:
        # Pillow opens 16-bit PGM, and in old versions PNG, as 32-bit integers
        known = image.mode != "I" or image.format in ("PNG", "PPM")
        bits = int(tags.get(BITS, (16,))[0])
        share = values / (2**bits - 1) if known else np.full(1, np.nan)
        expected = "integers of 8 or 16 bits"
    low, high = share.min(), share.max()
    if not (low >= -MIDDLE and high <= 1 + MIDDLE):  # NaN included
        found = f"this has {values.dtype} from {values.min():g} to {values.max():g}"
        raise SampleError.of("picture", path, f"{expected}, {found}", "convert the file to 8 or 16 bits")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        share = 1 - share
    return Image.fromarray(np.rint(share.clip(0, 1) * 255).astype(np.uint8))
