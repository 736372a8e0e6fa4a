"""Names of groups of runs: what they are, and where that is the same, the options in which they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from raptor.errors import show
from raptor.runs.groups import Configuration, RunGroup

MISSING = object()
SHOWN = 3  # differing options in a label, where no more are needed
NAMES = {"trainer.max_steps": "steps", "trainer.max_epochs": "epochs", "surrogate.boundaries": "cut after"}
FIRST = ("task", "trainer.max_steps", "trainer.max_epochs", "surrogate")  # options that a label names before others


def label_groups(groups: Sequence[RunGroup], base: Callable[[RunGroup], str]) -> None:
    """Label groups by what they are, and where that is the same, by the options in which they differ."""
    same: dict[str, list[RunGroup]] = {}
    for group in groups:
        same.setdefault(base(group), []).append(group)
    for label, members in same.items():
        for group, differing in zip(members, differences(members), strict=True):
            group.label = join(label, differing)


def join(label: str, differing: Mapping[str, str], separator: str = ", ") -> str:
    """Return a label with the options in which a group differs from others of this label, as :func:`differences`."""
    return separator.join(
        filter(None, [label, ", ".join(f"{name} {value}".strip() for name, value in differing.items())])
    )


def differences(groups: Sequence[RunGroup]) -> list[dict[str, str]]:
    """Return the options in which groups differ, for each group by short name, in words.

    All that are needed to separate the groups, and others up to :data:`SHOWN`; under an empty name how many more.
    """
    if len(groups) < 2:
        return [{} for _ in groups]
    every = list(dict.fromkeys(key for group in groups for key in group.options))
    differing = [key for key in every if len({show(group.options.get(key, MISSING)) for group in groups}) > 1]
    # where another loss was chosen, its weights say nothing more, unless only they differ
    chosen = [key for key in differing if any(other.startswith(f"{key}.") for other in every)]
    kept = [key for key in differing if not any(key.startswith(f"{choice}.") for choice in chosen)]
    texts = {key: [_text(key, group) for group in groups] for key in differing}
    if len(_parts(kept, texts)) < len(_parts(differing, texts)):
        kept = differing
    telling = _telling(sorted(kept, key=_rank), texts)
    order = [*telling, *(key for key in sorted(kept, key=_rank) if key not in telling)]
    names = _short(order)
    return [_shown([(names[key], texts[key][i], key in telling) for key in order]) for i in range(len(groups))]


def _shown(options: Sequence[tuple[str, str, bool]]) -> dict[str, str]:
    """Choose what a label shows of a group: name and value, and whether the option is needed to tell it apart."""
    known = [option for option in options if option[1] != ""]
    count = max(SHOWN, sum(needed for _, _, needed in known))
    more = {"": f"{len(known) - count} more"} if len(known) > count else {}
    return {name: value for name, value, _ in known[:count]} | more


def _parts(keys: Sequence[str], texts: Mapping[str, list[str]]) -> set[tuple[str, ...]]:
    """Distinct combinations of values."""
    return set(zip(*(texts[key] for key in keys), strict=True))


def _rank(key: str) -> int:
    return next((i for i, first in enumerate(FIRST) if f"{key}.".startswith(f"{first}.")), len(FIRST))


def _telling(keys: Sequence[str], texts: Mapping[str, list[str]]) -> list[str]:
    """Select keys each of which separates groups that those before it do not."""
    found: list[str] = []
    for key in keys:
        if len(_parts([*found, key], texts)) > max(1, len(_parts(found, texts))):
            found.append(key)
    return found


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Shortest name of each key that no other one has."""
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        unique = [end for end in ends if not any(f".{other}".endswith(f".{end}") for other in keys if other != key)]
        names[key] = NAMES.get(key, next(iter(unique), key))
    return names


def _text(key: str, group: RunGroup) -> str:
    """Value of an option as a label shows it; empty where a group has no such option."""
    if key not in group.options:
        return ""
    value, configuration = group.options[key], group.records[0].configuration
    if configuration is not None and (names := _built_on(key, configuration)):
        return names
    return show(value)


def _built_on(key: str, configuration: Configuration) -> str:
    """Names of the folders that an option names."""
    folders = [folder.name for name, folder in configuration.built_on.items() if f"{name}.".startswith(f"{key}.")]
    return "+".join(folders)
