"""qos: which media the phones of a call have agreed on is kept with its dialog. See ``proxy/sessions.py``."""

from __future__ import annotations

from typing import Any

from sipgw.exports import Module, param, requires
from sipgw.modules.dialog import Dialog
from sipgw.proxy.dialogs import Call, Leg
from sipgw.proxy.sessions import SessionWatch
from sipgw.script.run import Run


class Qos(Module):
    """Keeps the sessions of calls: ``dialog:list_ctx`` shows them as ``qos``."""

    dialog: Dialog = requires("dialog")

    qos_flag: str = param("", "The message flag of the INVITEs whose sessions are kept, set before create_dialog")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._flag = 0
        self._watch: SessionWatch = None  # type: ignore[assignment]  # made by start

    async def start(self) -> None:
        """Hear of new calls."""
        if not self.qos_flag:
            raise ValueError('qos: modparam "qos_flag" is missing: it says whose sessions are kept')
        self._flag = self.server.user.message_flags.mask(self.qos_flag)
        self._watch = SessionWatch(self.dialog.tm)
        self.dialog.on_created(self._created)

    def _created(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        if run is not None and run.flags & self._flag:
            self._watch.begin(call, run)
