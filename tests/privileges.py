"""Code run as somebody else, on the file system as it is."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

NOBODY = 65534
Value = TypeVar("Value")


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that everybody may read, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="raptor-shared-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def as_nobody(function: Callable[[], list[str]]) -> list[str]:
    """Call a function in a child that has given up the rights of root; any user but root has none to give up."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on warns wherever there are threads
        child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            text = "\0".join(function())
        except BaseException:
            text = traceback.format_exc()
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read().decode()
    os.waitpid(child, 0)
    if text.startswith("Traceback"):
        pytest.fail(text)
    return text.split("\0") if text else []
