"""Writes the committed OpenAPI document, `api/openapi.json`: `python -m api.openapi`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, cast

from api.app import create_app
from api.deps import Deps

PATH = Path(__file__).with_name("openapi.json")


def document() -> dict[str, Any]:
    """The document of the application as it is now; making it calls none of its dependencies."""
    return create_app(cast(Deps, _NoDeps())).openapi()


def text() -> str:
    """The document as it is committed."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


class _NoDeps:
    clock = None


if __name__ == "__main__":
    PATH.write_text(text())
    sys.stdout.write(f"wrote {PATH}\n")
