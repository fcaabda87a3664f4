"""Envoy's own verdict on a configuration: `envoy --mode validate`, bounded in time and number."""

import asyncio
import contextlib
import json
import os
import re
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Document = dict[str, Any]

_REASON = re.compile(r"error initializing (?:configuration|config) '[^']*': (.*)", re.DOTALL)
_WAITING_MAX = 8
_MESSAGE_CHARACTERS = 2_000


class TrialFailed(Exception):
    """Envoy gave no verdict: it is not there, too slow, or too many ask at once."""


@dataclass(slots=True)
class EnvoyTrial:
    """One configuration at a time is tried."""

    binary: Path
    timeout_s: float = 20.0
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    _waiting: int = 0

    async def verdict(self, document: Document) -> str | None:
        """Why Envoy refuses the bootstrap `document`; None when it does not. Raises TrialFailed."""
        if self._waiting >= _WAITING_MAX:
            raise TrialFailed("too many configurations are being tried; try again later")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._ask(document)
        finally:
            self._waiting -= 1

    async def _ask(self, document: Document) -> str | None:
        with tempfile.TemporaryDirectory(prefix="signalbox-plan-") as folder:  # this user only
            place = Path(folder) / "envoy.json"
            place.write_text(json.dumps(document), encoding="utf-8")
            try:
                process = await asyncio.create_subprocess_exec(
                    *(str(self.binary), "--mode", "validate", "--config-path", str(place)),
                    *("--concurrency", "1", "--log-level", "error", "--disable-hot-restart"),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    env={"PATH": os.environ.get("PATH", ""), "HOME": folder},
                )
            except OSError as error:
                raise TrialFailed(f"{self.binary} cannot be run: {error.strerror}") from error
            try:
                async with asyncio.timeout(self.timeout_s):
                    _, printed = await process.communicate()
            except TimeoutError as error:
                raise TrialFailed(f"Envoy gave no verdict within {self.timeout_s:g} s") from error
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
        if process.returncode == 0:
            return None
        if process.returncode is not None and process.returncode < 0:
            number = -process.returncode
            words = signal.strsignal(number) or "unknown"
            raise TrialFailed(f"Envoy was ended by signal {number} ({words}): no verdict")
        return _reason(printed.decode(errors="replace"))


def _reason(printed: str) -> str:
    """Envoy's sentence, without the configuration that it may quote: that can hold secrets."""
    found = _REASON.search(printed)
    text = found[1] if found else "\n".join(printed.splitlines()[-3:])
    text = re.split(r"\n\[\d{4}-", text, maxsplit=1)[0]
    text = re.sub(r"(Proto constraint validation failed \(.*?\)):.*", r"\1", text, flags=re.DOTALL)
    return text.strip()[:_MESSAGE_CHARACTERS] or "Envoy refuses it without a reason"
