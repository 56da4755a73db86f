"""Users, logins and tokens. Secrets have 256 bits, and only their SHA-256 is stored."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, delete, func, insert, select, update

from ..errors import UsageError
from . import audit_log
from . import tables as t
from .database import now_ms

SETUP = "setup"
"""Key of the hash of the set-up code in the table of settings."""
MIN_PASSWORD = 12
_HASHER = PasswordHasher()
_NOBODY = _HASHER.hash(secrets.token_urlsafe())
"""Hash checked for unknown names, so that the response time does not reveal which names exist."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The user or program that makes a request.

    Attributes:
        name: Name of the user or token.
        role: See :data:`.settings.ROLES`.
        user: User number; None for a token.
        blind: Whether verdicts are hidden until the reader has stored one.
    """

    name: str
    role: str
    user: int | None = None
    blind: bool = False

    @property
    def sender(self) -> str:
        """Name as a sender of pictures; it distinguishes a token from a user of the same name."""
        return self.name if self.user is not None else f"token:{self.name}"


def digest(secret: str) -> str:
    """The stored form of a token."""
    return hashlib.sha256(secret.encode()).hexdigest()


def needs_setup(connection: Connection) -> bool:
    """Whether the service has no users yet."""
    return not connection.scalar(select(func.count()).select_from(t.user))


def new_setup_code(connection: Connection) -> str:
    """A code for the creation of the first administrator; it replaces an earlier code."""
    code = secrets.token_urlsafe(32)
    connection.execute(delete(t.setting).where(t.setting.c.key == SETUP))
    connection.execute(insert(t.setting).values(key=SETUP, value=digest(code)))
    return code


def use_setup_code(connection: Connection, code: str, name: str, password: str) -> int | None:
    """Create the first administrator; None if the code is wrong or was used."""
    stored = connection.scalar(select(t.setting.c.value).where(t.setting.c.key == SETUP))
    if stored is None or not secrets.compare_digest(str(stored), digest(code)):
        return None
    connection.execute(delete(t.setting).where(t.setting.c.key == SETUP))
    return add_user(connection, name, "admin", password, "setup")


def add_user(
    connection: Connection, name: str, role: str, password: str, actor: str, blind: bool = False
) -> int:
    """Add a user; return its number.

    Raises:
        UsageError: The name is already in use, or the password is too short.
    """
    if connection.scalar(select(t.user.c.id).where(t.user.c.name == name)) is not None:
        raise UsageError(f"found an existing user {name!r}, expected another name")
    values = {
        "name": name, "role": role, "password": hashed(password), "blind": blind, "active": True,
        "created_ms": now_ms(),
    }  # fmt: skip
    key = connection.execute(insert(t.user).values(**values)).inserted_primary_key
    assert key is not None  # noqa: S101
    audit_log.append(connection, actor, "add user", f"user/{key[0]}", {"role": role})
    return int(key[0])


def hashed(password: str) -> str:
    """The stored form of a password.

    Raises:
        UsageError: It is too short.
    """
    if len(password) < MIN_PASSWORD:
        raise UsageError(
            f"found a password of {len(password)} characters, expected {MIN_PASSWORD} or more"
        )
    return _HASHER.hash(password)


def check_password(connection: Connection, name: str, password: str) -> int | None:
    """Number of the active user with this name and password; None if the login is wrong."""
    user = t.user.c
    row = connection.execute(
        select(user.id, user.password, user.active).where(user.name == name)
    ).first()
    try:
        _HASHER.verify(row.password if row else _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return None
    return int(row.id) if row and row.active else None


def log_in(connection: Connection, user: int) -> str:
    """Start a session; return its secret."""
    secret, now = secrets.token_urlsafe(32), now_ms()
    connection.execute(
        insert(t.session).values(hash=digest(secret), user_id=user, created_ms=now, seen_ms=now)
    )
    name = connection.scalar(select(t.user.c.name).where(t.user.c.id == user))
    audit_log.append(connection, str(name), "log in", f"user/{user}")
    return secret


def log_out(connection: Connection, secret: str) -> None:
    """End a session."""
    connection.execute(delete(t.session).where(t.session.c.hash == digest(secret)))


def log_out_everywhere(connection: Connection, user: int, secret: str = "") -> None:
    """End all sessions of a user except the one with this secret."""
    others = (t.session.c.user_id == user, t.session.c.hash != digest(secret))
    connection.execute(delete(t.session).where(*others))


def by_session(
    connection: Connection, secret: str, idle_ms: int, total_ms: int
) -> tuple[Principal, int] | None:
    """The user of an unexpired session, and the time of its last use."""
    session, user, now = t.session.c, t.user.c, now_ms()
    row = connection.execute(
        select(user.id, user.name, user.role, user.blind, session.seen_ms)
        .join(t.user, user.id == session.user_id)
        .where(
            session.hash == digest(secret), user.active, session.seen_ms > now - idle_ms,
            session.created_ms > now - total_ms,
        )
    ).first()  # fmt: skip
    if row is None:
        return None
    return Principal(row.name, row.role, int(row.id), bool(row.blind)), int(row.seen_ms)


def touch(connection: Connection, secret: str) -> None:
    """Record the current time as the last use of a session."""
    own = t.session.c.hash == digest(secret)
    connection.execute(update(t.session).where(own).values(seen_ms=now_ms()))


def new_token(connection: Connection, name: str, role: str, actor: str) -> tuple[int, str]:
    """Create a bearer token; return its number and its secret, which is not stored."""
    secret = f"fxp_{secrets.token_urlsafe(32)}"
    key = connection.execute(
        insert(t.token).values(hash=digest(secret), name=name, role=role, created_ms=now_ms())
    ).inserted_primary_key
    assert key is not None  # noqa: S101
    audit_log.append(connection, actor, "create token", f"token/{key[0]}", {"role": role})
    return int(key[0]), secret


def by_token(connection: Connection, secret: str) -> Principal | None:
    """The program with a valid token."""
    row = connection.execute(
        select(t.token.c.name, t.token.c.role).where(
            t.token.c.hash == digest(secret), t.token.c.revoked_ms.is_(None)
        )
    ).first()
    return None if row is None else Principal(row.name, row.role)
