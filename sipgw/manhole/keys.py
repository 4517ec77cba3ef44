"""Who may come in by SSH: the lines of an authorized_keys file, and the server's own key.

A line is that of OpenSSH: options, the key, a comment, which names the user in the log. One option is known: ``role=admin`` for
the Python shell, ``role=operate`` (what a key is without it) for management commands. A line with any other option is no way
in: what it forbids is not known here. The file is read at each login, so that a key that is taken out is out."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch import error as conch_error
from twisted.conch.ssh.keys import Key
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ISSHPrivateKey
from twisted.cred.error import UnauthorizedLogin
from zope.interface import implementer

ADMIN, OPERATE = "admin", "operate"
_KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-")


@dataclass(frozen=True)
class Identity:
    """Whose key it is: ``name`` is its comment, its fingerprint if it has none."""

    name: str
    role: str


class KeyFault(ValueError):
    """A file of keys cannot be used."""


def read_keys(file: str) -> list[tuple[Key, Identity]]:
    """The keys of a file; ``KeyFault`` if it cannot be read, a line is wrong, or others may write it."""
    try:
        with open(file, encoding="utf-8") as lines:
            found = os.fstat(lines.fileno())
            text = lines.read()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFault(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or found.st_uid not in (0, os.geteuid()):
        raise KeyFault(f"{file} can be written by others: chmod go-w, and chown it")
    keys = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                keys.append(read_key(line.strip()))
            except ValueError as error:
                raise KeyFault(f"{file}:{number}: {error}") from None
    return keys


def read_key(line: str) -> tuple[Key, Identity]:
    """One line; ``ValueError`` if it is none that can be used."""
    role = OPERATE
    if not line.startswith(_KINDS):
        options, _, line = line.partition(" ")
        for option in options.split(","):
            name, _, value = option.partition("=")
            if name != "role" or value.strip('"') not in (ADMIN, OPERATE):
                raise ValueError(f"unknown option {option!r}: write role=admin or role=operate before the key")
            role = value.strip('"')
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(_KINDS):
        raise ValueError("this is no public key of OpenSSH")
    try:
        key = Key.fromString(" ".join(words[:2]).encode())
    except Exception as error:  # of a dozen kinds
        raise ValueError(f"this is no public key of OpenSSH: {error}") from None
    if not key.isPublic():
        raise ValueError("this is a private key")
    return key, Identity(words[2].strip() if len(words) > 2 else key.fingerprint(), role)


def host_key(file: str) -> Key:
    """The server's own key, made now if it is not there; nobody else may read it. ``KeyFault`` if that cannot be."""
    try:
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "wb") as new:
                new.write(Key(Ed25519PrivateKey.generate()).toString("openssh"))
        with open(file, "rb") as old:
            found, data = os.fstat(old.fileno()), old.read()
    except OSError as error:
        raise KeyFault(f"{file}: {error.strerror}") from None
    if found.st_mode & 0o077:
        raise KeyFault(f"{file} can be read by others: chmod 600")
    try:
        key: Key = Key.fromString(data)
    except Exception as error:
        raise KeyFault(f"{file} is no private key: {error}") from None
    if key.isPublic():
        raise KeyFault(f"{file} is a public key")
    return key


@implementer(ICredentialsChecker)
class KeyChecker:
    """Lets in who has a key of the file; gives the ``Identity``. ``log(level, text)`` hears of who is turned away."""

    credentialInterfaces = (ISSHPrivateKey,)

    def __init__(self, file: str, log: Any) -> None:
        self._file = file
        self._log = log

    def requestAvatarId(self, credentials: Any) -> Identity:
        """Look at a key, and at the signature that proves whose it is, if there is one yet."""
        try:
            offered = Key.fromString(credentials.blob)
            keys = read_keys(self._file)
        except KeyFault as error:
            self._log(-1, f"manhole: {error}")
            raise UnauthorizedLogin("no keys") from None
        except Exception:
            raise UnauthorizedLogin("no key") from None
        name = credentials.username.decode("utf-8", "replace")
        found = next((identity for key, identity in keys if key == offered), None)
        if found is None:
            self._log(2, f"manhole: {name} is refused: no key {offered.fingerprint()}")
            raise UnauthorizedLogin("unknown key")
        if credentials.signature is None:
            raise conch_error.ValidPublicKey
        if not offered.verify(credentials.signature, credentials.sigData):
            self._log(2, f"manhole: {name} is refused: the signature is wrong")
            raise UnauthorizedLogin("wrong signature")
        return found
