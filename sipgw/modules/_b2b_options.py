"""What scripts may choose for back-to-back calls: flags, and who and where we say that we are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sipgw.b2bua.legs import NUMBERED, REDIRECTS, TRANSPARENT
from sipgw.exports import Module, Writable, param
from sipgw.modules._b2b_port import Entities
from sipgw.modules._specs import check_variable, variable
from sipgw.proxy.disguise import is_uri
from sipgw.proxy.hiding import own_contact
from sipgw.script.compiler import compile_format
from sipgw.script.run import Run
from sipgw.sip.address import NameAddr
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token


@dataclass
class InitFlags:
    """The flags of ``b2b_init_request``."""

    setup_timeout: int | None = None
    preserve_to: bool = False
    transparent: bool = False
    numbered: bool = False


def init_flags(text: str) -> InitFlags:
    """The flags of ``b2b_init_request``."""
    found = InitFlags()
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = word.partition("=")
        if name == "setup-timeout" and value.isascii() and value.isdigit() and len(value) < 8:
            found.setup_timeout = int(value)
        elif word == "preserve-to":
            found.preserve_to = True
        elif word == TRANSPARENT:
            found.transparent = True
        elif word == NUMBERED:
            found.numbered = True
        else:
            raise ValueError(
                f"b2b_init_request knows no flag {word!r}; it takes setup-timeout=N, transparent-auth, preserve-to, "
                "pass-legs-upstream"
            )
    return found


def client_flags(text: str) -> bool:
    """The flags of ``b2b_client_new``: whether the one that there is has been set."""
    return _only(NUMBERED, text)


def reply_flags(text: str) -> bool:
    """The flags of ``b2b_handle_reply``: whether the one that there is has been set."""
    return _only(REDIRECTS, text)


def _only(flag: str, text: str) -> bool:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word != flag:
            raise ValueError(f"there is no flag {word!r} here; the only one is {flag}")
    return bool(words)


def param_names(text: str) -> frozenset[str]:
    """Names of parameters with semicolons between them."""
    names = [name.strip().lower() for name in text.split(";") if name.strip()]
    for name in names:
        if not is_token(name):
            raise ValueError(f"{name!r} is no name of a parameter")
    return frozenset(names)


class Options(Module):
    """The part of b2b_logic that knows what was chosen."""

    entities: Entities

    custom_contact_header_params: str = param(
        "", "Parameters of Contact that are passed on: 'audio;video'", check=param_names
    )
    b2bl_from_spec_param: str = param("", "The variable with From of the calls that we begin: $var(from)", check=check_variable)
    server_address: str = param("", "Our Contact, a URI in which variables may stand; without it that of the socket")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._from: Writable | None = None
        self._address: Callable[[Run], Any] | None = None

    def read_options(self) -> None:
        """Read what names variables."""
        self.entities.contact_params = param_names(self.custom_contact_header_params)
        symbols: Any = getattr(self.server, "symbols", None)
        if self.b2bl_from_spec_param:
            self._from = variable(self.b2bl_from_spec_param, symbols)
        if self.server_address:
            self._address = compile_format(self.server_address, symbols)

    def sender(self, run: Run) -> NameAddr | None:
        """From of a call, where the script has set it; ``ValueError`` if what it has set is none."""
        value = None if self._from is None else self._from.get(run)
        if not isinstance(value, str) or not value.strip():
            return None
        try:
            found = NameAddr.parse(value.strip())
        except MalformedMessage as error:
            raise ValueError(f"{self.b2bl_from_spec_param} is no name and address: {value!r}") from error
        if not is_uri(found.uri_text) or any(sign in value for sign in "\r\n\0"):
            raise ValueError(f"{self.b2bl_from_spec_param} has no URI: {value!r}")
        return found

    def contact_at(self, run: Run | None, socket: Any, user: str = "") -> str:
        """Our Contact: ``server_address``, or where ``socket`` is. ``run``: of the message that is at hand, if one is."""
        if self._address is not None and (run is not None or "$" not in self.server_address):
            text = str(self._address(run)) if run is not None else self.server_address
            if is_uri(text) or (text.startswith("<") and is_uri(text[1:].partition(">")[0])):
                return text if text.startswith("<") else f"<{text}>"
            self.server.user.log_rarely("server_address", -1, f"b2b_logic: server_address is no URI: {text!r}")
        return own_contact(socket, user)
