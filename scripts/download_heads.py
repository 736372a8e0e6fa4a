#!/usr/bin/env python3
"""Fetch Meta's published linear heads for DINOv2 with registers: download_heads.py [DIR].

They classify ImageNet-1k from [cls, mean patch]; use one as teacher.head=DIR/dinov2_vitb14_reg4_linear_head.pth. A
download that was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from raptor.errors import ConfigError, RaptorError
from raptor.models.heads import read_linear

ORIGIN = "https://dl.fbaipublicfiles.com/dinov2"
WIDTHS = {"s": 384, "b": 768, "l": 1024, "g": 1536}
COLUMNS = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())


def file_name(size: str) -> str:
    """Return Meta's file name of the head of a model size: s, b, l or g."""
    return f"dinov2_vit{size}14_reg4_linear_head.pth"


def download(url: str, target: Path, progress: Progress) -> None:
    """Download a file, continuing a partial one; the target is renamed into place when complete.

    Parameters
    ----------
    url
        What to fetch.
    target
        The file to make; its part lies beside it as ``<name>.part``.
    progress
        Shows how far it is.

    Raises
    ------
    OSError
        If the server cannot be reached, answers with an error, or ends too early; the part is kept.
    """
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urlopen(request, timeout=30)
    except HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # it is as long as the file, or longer: not to be trusted
        return download(url, target, progress)
    with answer:
        if answer.status != HTTPStatus.PARTIAL_CONTENT:
            have = 0  # the server sends the whole file
        if answer.headers["Content-Length"] is None:
            raise OSError(f"{url} does not say how long it is")
        total = have + int(answer.headers["Content-Length"])
        bar = progress.add_task(target.name, total=total, completed=have)
        with part.open("ab" if have else "wb") as file:
            while chunk := answer.read(1 << 16):
                file.write(chunk)
                progress.advance(bar, len(chunk))
    if part.stat().st_size != total:
        raise OSError(f"the connection ended after {part.stat().st_size} of {total} bytes")
    part.replace(target)
    return None


def main() -> None:
    """Parse the command line, download, check the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("heads"), help="where to (%(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=WIDTHS, default=["s", "b"], help="model sizes (s b)")
    parser.add_argument("--origin", default=ORIGIN, help="server and folder to fetch from")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with Progress(*COLUMNS) as progress:
        for size in arguments.sizes:
            target = arguments.folder / file_name(size)
            try:
                if not target.exists():
                    download(f"{arguments.origin}/dinov2_vit{size}14/{target.name}", target, progress)
                head = read_linear(target, str(target))
            except (OSError, HTTPException, ValueError) as error:
                fix = "give the command again: it goes on where it stopped"
                sys.exit(f"error: {ConfigError.of('file', target.name, f'a download that ends ({error})', fix)}")
            except RaptorError as error:
                sys.exit(f"error: {error} Or delete the file and call again.")
            if head.linear.in_features != 2 * WIDTHS[size]:
                expected = f"a head of {2 * WIDTHS[size]} features (it has {head.linear.in_features})"
                sys.exit(f"error: {ConfigError.of('file', target, expected, 'delete it and call again')}")
            progress.console.print(f"{target}: {head.num_classes} classes from {head.linear.in_features} features")


if __name__ == "__main__":
    main()
