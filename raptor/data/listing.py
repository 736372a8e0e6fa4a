"""List the picture files of folders: each file once, whatever links lead to it, and a count of what is passed over."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from raptor.errors import ConfigError

TWICE = "links to what is listed already"


def list_pictures(
    folders: Sequence[Path], extensions: Collection[str], *, recursive: bool = True
) -> tuple[list[list[str]], Counter[str]]:
    """List the files of some folders that have one of the extensions, each file once.

    Symbolic links are followed, but not to a folder around them. A folder or file that is reached twice counts where no
    link leads to it, else at the first link by name. Names that begin with a dot are passed over.

    Parameters
    ----------
    folders
        Where to look.
    extensions
        In lower case, each with its dot; the case of a file's extension does not matter.
    recursive
        Whether to look into subfolders.

    Returns
    -------
    files
        For each folder its files, by the name of their subfolder and their own.
    passed_over
        How many files were passed over, by extension or reason.

    Raises
    ------
    ConfigError
        If a folder cannot be read.
    """
    files: list[list[tuple[str, str]]] = [[] for _ in folders]  # folder and name
    links: list[tuple[int, str, str]] = []  # those that are links, with the position of their folder
    passed: Counter[str] = Counter()
    real: dict[str, str] = {}  # folders as they are reached, and without links
    direct: deque[tuple[int, str]] = deque()
    linked: deque[tuple[int, str]] = deque()
    for i, path in enumerate(folders):
        (linked if path.is_symlink() else direct).append((i, str(path)))
    seen: set[str] = set()
    while direct or linked:
        i, folder = (direct or linked).popleft()
        real[folder] = os.path.realpath(folder)
        if real[folder] in seen or Path(real[folder]) in Path(folder).parent.resolve().parents:
            passed[TWICE] += 1
            continue
        seen.add(real[folder])
        for entry in _entries(folder):
            suffix = Path(entry.name).suffix.lower()
            is_folder, is_file = _kind(entry)
            if entry.name.startswith("."):
                passed["hidden"] += 1
            elif is_folder and recursive:
                (linked if entry.is_symlink() else direct).append((i, entry.path))
            elif is_folder:
                passed["folders"] += 1
            elif suffix not in extensions:
                passed[suffix or "without extension"] += 1
            elif not is_file:
                passed["pipes and devices"] += 1
            elif entry.is_symlink():
                links.append((i, folder, entry.name))
            else:
                files[i].append((folder, entry.name))
    if links:
        listed = {f"{real[folder]}/{name}" for part in files for folder, name in part}
        for i, folder, name in links:
            if (target := os.path.realpath(f"{folder}/{name}")) in listed:
                passed[TWICE] += 1
                continue
            listed.add(target)
            files[i].append((folder, name))
    return [[f"{folder}/{name}" for folder, name in sorted(part)] for part in files], passed


def describe_passed_over(counts: Mapping[str, int]) -> str:
    """Describe a count of what was passed over, the most frequent first: ``20 .txt, 1 hidden``."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        fix = "make it readable, or remove it"
        raise ConfigError.of("folder", folder, f"a folder that can be read ({error.strerror})", fix) from error


def _kind(entry: os.DirEntry[str]) -> tuple[bool, bool]:
    """Whether an entry is a folder, and a file; a link that leads nowhere is a file, which cannot be read."""
    try:
        if entry.is_dir():
            return True, False
        return False, entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:  # a link to itself
        return False, True
