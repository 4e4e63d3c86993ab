"""What a PNG says beside its pixels <-> JSON types, and what other formats say -> chunks.

``chunks`` is all of it, in order: ``[type, base64]``, or readable where that loses nothing: ``[tEXt, keyword, text]``,
``[iTXt, keyword, language, keyword in that language, text]``. ``["IDAT"]`` stands for the pixels where chunks follow
them; ``[iCCP, name, ""]`` and ``["eXIf"]`` for blocks that are keys of their own (``icc_profile``, ``exif``: base64).
"""

import base64
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from pipelines.images.pixels import ORIENTATION
from pipelines.images.png_chunks import CHANNELS, PALETTE, Chunk, Kind, Png

MOST_BYTES = 1 << 22  # of one block; more is listed in ``left_out``
AFTER_PALETTE = (b"bKGD", b"hIST")
XMP = "XML:com.adobe.xmp"
EXIF_MARK = b"Exif\0\0"  # JPEG puts it before the block, PNG does not
MAX_DPI = 1 << 20  # more is damage
INCH = 0.0254  # metres
WHITE = {2: 3, 4: 15}
MODES = {0: "L", 2: "RGB", PALETTE: "P", 4: "LA", 6: "RGBA"}


def shared(png: Png) -> dict[str, Any]:
    """What every frame needs to be understood: mode, white, bits, palette, transparency, orientation."""
    kind, found = png.kind, dict[str, Any](mode=_mode(png.kind))
    if kind.colour == 0 and kind.depth in WHITE:
        found["white"] = WHITE[kind.depth]
    if kind.colour == PALETTE and kind.depth < 8:
        found["bits"] = kind.depth
    if kind.interlaced:
        found["interlaced"] = True
    for chunk in png.before:
        if chunk.kind == b"PLTE" and kind.colour == PALETTE:
            found["palette"] = _base64(chunk.data)
        elif chunk.kind == b"tRNS" and kind.colour in (0, 2, PALETTE):
            found["transparency"] = _transparency(kind, bytes(chunk.data))
    if orientation := _orientation([*png.before, *png.after]):
        found["orientation"] = orientation
    return found


def _mode(kind: Kind) -> str:
    """Pillow's name of the colours; 16-bit ones, which Pillow has not, by its way of naming."""
    if kind.colour == 0 and kind.depth != 8:
        return {1: "1", 16: "I;16"}.get(kind.depth, "L")
    return MODES[kind.colour] + ";16" * (kind.depth == 16)


def file_wide(png: Png) -> dict[str, Any]:
    """What stands once: the chunks, the blocks among them, how often an animation plays."""
    found, left_out = dict[str, Any](), list[str]()
    entries: list[list[str]] = []
    for chunk in [*png.before, Chunk(b"IDAT", b""), *png.after] if png.after else png.before:
        kind, data = chunk.kind.decode("latin-1"), bytes(chunk.data)
        if kind == "IDAT":
            entries.append([kind])
        elif (kind == "tRNS" and png.kind.colour in (0, 2, PALETTE)) or (kind == "PLTE" and png.kind.colour == PALETTE):
            continue
        elif len(data) > MOST_BYTES:
            left_out.append(f"{kind} ({len(data)} bytes)")
        else:
            entries.append(_entry(kind, data, found))
    if png.trailing:
        left_out.append(f"{png.trailing} bytes after the end")
    if png.plays is not None:
        found["loop"] = png.plays
    return {**found, **({"chunks": entries} if entries else {}), **({"left_out": left_out} if left_out else {})}


def chunks_of(metadata: dict[str, Any], kind: Kind) -> tuple[list[Chunk], list[Chunk]]:
    """The chunks before and after the pixels; those that another format's metadata ask for, where it was none."""
    entries = metadata["chunks"] if "chunks" in metadata else list(_foreign(metadata))
    parts: tuple[list[Chunk], list[Chunk]] = ([], [])
    where = 0
    for entry in entries:
        if entry == ["IDAT"]:
            where = 1
        else:
            parts[where].append(Chunk(entry[0].encode("latin-1"), _data(entry, metadata)))
    colours = list(_colours(metadata, kind))
    middle = next((k for k, chunk in enumerate(parts[0]) if chunk.kind in AFTER_PALETTE), len(parts[0]))
    return [*parts[0][:middle], *colours, *parts[0][middle:]], parts[1]


def _entry(kind: str, data: bytes, found: dict[str, Any]) -> list[str]:
    """A chunk as JSON; blocks of their own go to ``found``."""
    if kind == "eXIf" and "exif" not in found and data:
        found["exif"] = _base64(data)
        return [kind]
    if kind == "iCCP" and "icc_profile" not in found and (profile := _inflated(data.partition(b"\0")[2][1:])):
        found["icc_profile"] = _base64(profile)
        return [kind, data.partition(b"\0")[0].decode("latin-1"), ""]
    if kind == "tEXt" and b"\0" in data:
        return [kind, *(part.decode("latin-1") for part in data.split(b"\0", 1))]
    if kind == "iTXt" and (parts := _international(data)):
        return [kind, *parts]
    return [kind, _base64(data)]


def _data(entry: Sequence[str], metadata: dict[str, Any]) -> bytes:
    """Inverse of ``_entry``."""
    kind = entry[0]
    if kind == "eXIf" and len(entry) == 1:
        return base64.b64decode(metadata["exif"])
    if kind == "iCCP" and len(entry) == 3:
        return entry[1].encode("latin-1") + b"\0\0" + zlib.compress(base64.b64decode(metadata["icc_profile"]))
    if kind == "tEXt" and len(entry) == 3:
        return b"\0".join(part.encode("latin-1") for part in entry[1:])
    if kind == "iTXt" and len(entry) == 5:
        keyword, language, translated, text = entry[1:]
        return b"\0".join(
            (keyword.encode("latin-1"), b"\0", language.encode("latin-1"), translated.encode(), text.encode())
        )
    return base64.b64decode(entry[1])


def _international(data: bytes) -> list[str] | None:
    """Keyword, language, translated keyword and text of an iTXt; None if it is compressed or not as it should be."""
    keyword, _, rest = data.partition(b"\0")
    parts = rest[2:].split(b"\0", 2)
    if rest[:2] != b"\0\0" or len(parts) != 3:
        return None
    try:
        return [keyword.decode("latin-1"), parts[0].decode("latin-1"), parts[1].decode(), parts[2].decode()]
    except UnicodeDecodeError:
        return None


def _inflated(data: bytes) -> bytes | None:
    """What is in a zlib stream; None if it is damaged, cut or big."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, MOST_BYTES)
    except zlib.error:
        return None
    return found if stream.eof else None


def _transparency(kind: Kind, data: bytes) -> Any:
    """The transparent sample or samples; of a palette the one index that is, or the alphas of all in base64."""
    if kind.colour == PALETTE:
        single = re.fullmatch(rb"\xff*\0\xff*", data)
        return data.index(0) if single else _base64(data)
    values = list(struct.unpack(f">{CHANNELS[kind.colour]}H", data))
    return values[0] if kind.colour == 0 else values


def _colours(metadata: dict[str, Any], kind: Kind) -> Iterator[Chunk]:
    """PLTE and tRNS."""
    found = metadata.get("transparency")
    if kind.colour == PALETTE:
        yield Chunk(b"PLTE", base64.b64decode(metadata["palette"])[: 3 << 8])
    if found is None or kind.colour not in (0, 2, PALETTE):
        return
    if kind.colour == PALETTE:
        yield Chunk(b"tRNS", b"\xff" * found + b"\0" if isinstance(found, int) else base64.b64decode(found))
    else:
        values = found if isinstance(found, list) else [found]
        yield Chunk(b"tRNS", struct.pack(f">{CHANNELS[kind.colour]}H", *values))


def _orientation(chunks: Sequence[Chunk]) -> int | None:
    """EXIF's, else XMP's; never applied."""
    for chunk in chunks:
        if chunk.kind == b"eXIf":
            exif = Image.Exif()
            try:
                exif.load(EXIF_MARK + bytes(chunk.data))
                found = exif.get(ORIENTATION)
            except Exception:  # a damaged block is no reason to refuse the pixels; it is kept as it is
                continue
            if isinstance(found, int) and 1 <= found <= 8:
                return found
    for chunk in chunks:
        if chunk.kind == b"iTXt" and bytes(chunk.data[: len(XMP)]) == XMP.encode():
            match = re.search(rb'tiff:Orientation(?:="|>)([1-8])', bytes(chunk.data))
            if match:
                return int(match[1])
    return None


def _foreign(metadata: dict[str, Any]) -> Iterator[list[str]]:
    """The entries for what another format said."""
    if "icc_profile" in metadata:
        yield ["iCCP", "ICC Profile", ""]
    dpi = metadata.get("dpi", [])
    if len(dpi) == 2 and all(0 < value < MAX_DPI for value in dpi):
        yield ["pHYs", _base64(struct.pack(">IIB", *(round(value / INCH) for value in dpi), 1))]
    if "exif" in metadata:
        yield ["eXIf", _base64(base64.b64decode(metadata["exif"]).removeprefix(EXIF_MARK))]
    if "comment" in metadata:
        yield ["tEXt", "Comment", base64.b64decode(metadata["comment"]).decode("latin-1").replace("\0", "")]
    if "xmp" in metadata:
        yield ["iTXt", XMP, "", "", base64.b64decode(metadata["xmp"]).decode("utf-8", "replace").rstrip("\0")]


def _base64(data: bytes | memoryview) -> str:
    return base64.b64encode(data).decode()
