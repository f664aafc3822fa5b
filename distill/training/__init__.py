"""(the room that is being built)"""

from types import SimpleNamespace
from typing import Any

METHODS: dict[str, Any] = {"lora": SimpleNamespace(suffix="")}
