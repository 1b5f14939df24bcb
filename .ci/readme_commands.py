"""Print a command of README.md: the code block that follows ``<!-- command: NAME -->``.

The continuous integration runs, and the tests check, exactly what a reader would copy.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(
    r"^<!-- command: (?P<name>\w+) -->\n```sh\n(?P<command>.+?)\n```$", re.MULTILINE | re.DOTALL
)


def readme_commands(text: str) -> dict[str, str]:
    """Each marked command of the README by its name."""
    return {match["name"]: match["command"] for match in BLOCK.finditer(text)}


if __name__ == "__main__":
    print(readme_commands(README.read_text(encoding="utf-8"))[sys.argv[1]])
