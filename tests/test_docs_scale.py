"""docs/scale.md names scripts, options and a picture that exist; what it measures takes too long to be run here."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python (benchmarks/.*)$", PAGE, re.MULTILINE)


def test_there_is_a_command_for_every_table():
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_scripts_and_options_exist(command):
    script, *arguments = shlex.split(command)
    source = (ROOT / script).read_text(encoding="utf-8")
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert f'add_argument("{option}"' in source, option


def test_the_picture_is_there():
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", PAGE)
    assert (ROOT / "docs" / picture).read_text(encoding="utf-8").startswith("<?xml")
