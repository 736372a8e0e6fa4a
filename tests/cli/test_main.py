"""The console command ``raptor``, and what the shell's completion gets from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raptor.cli.main import COMMANDS, main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raptor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Call the console command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["raptor", *arguments])
        main()

    return run


def test_commands_are_the_files_at_the_top_of_the_package(
    raptor: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path.stem for path in (ROOT / "raptor").glob("*.py")} - {"__init__", "errors", "version"}
    assert set(COMMANDS) == files
    raptor()
    bare = capsys.readouterr().out
    raptor("--help")
    assert capsys.readouterr().out == bare
    assert all(f"\n  {name} " in bare for name in files)


def test_a_command_gets_the_arguments_behind_its_name(
    raptor: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    raptor("train", "surrogate.k=3", "--cfg", "job")
    assert "\n  k: 3\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="nowhere"):
        raptor("status", str(tmp_path / "nowhere"))


@pytest.mark.parametrize(("wrong", "fix"), [("trian", "Fix: write raptor train."), ("x", "Fix: raptor --help")])
def test_an_unknown_command_is_refused_in_the_shape_of_all_messages(
    raptor: Callable[..., None], wrong: str, fix: str
) -> None:
    with pytest.raises(SystemExit, match=f"error: command={wrong}: expected one of train, .*{fix}") as ended:
        raptor(wrong)
    assert str(ended.value).startswith("error: ")  # a text as exit code: Python prints it and exits with 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("raptor ", set(COMMANDS)),
        ("raptor re", {"report", "reproduce"}),
        ("raptor train task=di", {"task=distill"}),
        ("raptor train surrogate.k", {"surrogate.k="}),
        ("raptor phases sol", {"solver="}),
        ("raptor status ", set()),
        ("raptor trian ", set()),
    ],
)
def test_completion_offers_commands_then_groups_and_keys(
    raptor: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    expected: set[str],
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    raptor("-sc", "query=bash")
    assert set(capsys.readouterr().out.split()) == expected


def test_the_script_for_the_shell_completes_the_console_command(
    raptor: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    raptor("-sc", "install=bash")
    assert capsys.readouterr().out.rstrip().endswith("complete -o nospace -o default -F hydra_bash_completion raptor")
