"""Writes the table of every option of ``bootstrap`` into ``docs/bootstrap.md``, from the settings themselves.

    python docs/options.py           # writes it
    python docs/options.py --check   # fails where the page is not what it would write
"""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = Path(__file__).with_name("bootstrap.md")
BEGIN = "<!-- options: begin (made by docs/options.py; do not edit) -->\n"
END = "<!-- options: end -->"
