"""Any server software as a serving engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from packaging.version import Version

from divcon.distill.serving._engine import ENGINES, Finding, ServingOptions
from divcon.distill.serving._settings import AnyServerSettings
from divcon.distill.serving.embedded import Base
from divcon.distill.serving.server._adapters import read_adapter
from divcon.distill.serving.server._errors import ServerError
from divcon.distill.serving.server._model import ServedModel
from divcon.distill.serving.server._software import ServerSoftware

_DEFAULT = "vllm"  # serves the students of a run that had none of its own


class ServerEngine:
    """Serves with a server that is started or attached to; see `Engine`.

    Args:
        software: What the server runs.
    """

    def __init__(self, software: ServerSoftware) -> None:
        self.software = software
        self.name = software.name
        self.where = f"by {software.title}"
        self.settings = software.settings
        self.takes = frozenset({"server", "adapter"} | ({"guided"} if software.guided(".*") is not None else set()))

    def serves(self, base: Base, options: ServingOptions) -> ServedModel:
        """A base behind a server, which the first call starts."""
        return ServedModel(
            self.software,
            base,
            options.settings,
            adapter=options.adapter_mode,
            precision=options.precision,
            log=options.log,
            told=options.told,
        )

    def examine(self, settings: AnyServerSettings | None) -> Iterator[Finding]:
        """Look for the software, or ask the running server what it serves."""
        title, settings = self.software.title, settings or self.settings()
        try:
            yield self._attached(settings) if settings.api_base else self._installed(settings)
        except ServerError as error:
            yield Finding("failure", title, error.problem, error.remedy)

    def _attached(self, settings: AnyServerSettings) -> Finding:
        assert settings.api_base is not None
        key = os.environ.get(settings.api_key_env or settings.key_variable)
        served = self.software.client(settings.api_base, key, timeout=10.0).names()
        return Finding("ok", self.software.title, f"{settings.api_base} serves {', '.join(served)}")

    def _installed(self, settings: AnyServerSettings) -> Finding:
        title, oldest = self.software.title, self.software.oldest
        found = self.software.installation(settings)
        shown = f"{title} {found.version}, torch {found.versions.get('torch', '?')} at {found.python}"
        if oldest is not None and Version(found.version) < oldest:
            return Finding("warning", title, f"{shown}; nothing older than {oldest} was tried", "Upgrade it.")
        where = "on the CPU, adapters merged unless told otherwise" if found.on_cpu else "adapters unmerged"
        return Finding("ok", title, f"{shown}; {where}")

    def check_adapter(self, folder: Path, base: Base) -> None:
        """Raise where the software can't serve an adapter of a base.

        Raises:
            ManifestError: It isn't an adapter of this base.
            ServerError: The software can't serve it.
        """
        read_adapter(folder, base, self.software)


def server_engine(name: str) -> ServerEngine:
    """The engine that serves elsewhere what is served by an engine here: the same where it is a server.

    Args:
        name: In the table of engines.

    Raises:
        UnknownName: There is no such engine.
    """
    engine = ENGINES[name]
    if not isinstance(engine, ServerEngine):
        engine = ENGINES[_DEFAULT]
        assert isinstance(engine, ServerEngine)
    return engine
