"""The systemd unit of a service, with minimal rights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HOMES = ("/home", "/root", "/run/user")
_STATE = Path("/var/lib")
_LOW_PORTS = 1024


@dataclass(frozen=True, slots=True)
class Unit:
    """Contents of a unit.

    Attributes:
        words: The program and its arguments.
        data: The data folder, the only writable one.
        account: User that runs the service; None for a unit of the current user.
        paths: Folders and files that the service reads, such as weights and environment.
        gpu: Whether it needs GPU devices.
        low_port: Whether it listens on a port below 1024.
    """

    words: Sequence[str]
    data: Path
    account: str | None
    paths: Sequence[Path] = ()
    gpu: bool = False
    low_port: bool = False

    def text(self) -> str:
        """The unit file."""
        lines = [
            "[Unit]",
            "Description=fxpipe: fracture detection in radiographs, a second reader for research",
            "After=network-online.target",
            "Wants=network-online.target",
            *(f"RequiresMountsFor={quoted(str(path))}" for path in (self.data, *self.paths)),
            "",
            "[Service]",
            "Type=exec",
            f"ExecStart={' '.join(quoted(word).replace('$', '$$') for word in self.words)}",
            "WorkingDirectory=/",
            "Environment=PYTHONSAFEPATH=1",
            "Restart=on-failure",
            "RestartSec=5",
            # The supervisor stops its child; processes that remain after the time limit are killed.
            "KillMode=mixed",
            "TimeoutStopSec=60",
            "UMask=0077",
            "LimitNOFILE=65536",
            *(self._rights() if self.account is not None else self._rights_of_user()),
            "",
            "[Install]",
            f"WantedBy={'multi-user' if self.account is not None else 'default'}.target",
        ]
        return "\n".join(lines) + "\n"

    def _rights(self) -> list[str]:
        in_home = any(_is_below(path, _HOMES) for path in (self.data, *self.paths))
        is_state = self.data.parent == _STATE
        capability = "CAP_NET_BIND_SERVICE" if self.low_port else ""
        return [
            f"User={self.account}",
            *((f"StateDirectory={quoted(self.data.name)}", "StateDirectoryMode=0700")
              if is_state else (f"ReadWritePaths={quoted(str(self.data))}",)),
            "NoNewPrivileges=yes",
            f"CapabilityBoundingSet={capability}",
            f"AmbientCapabilities={capability}",
            "ProtectSystem=strict",
            f"ProtectHome={'read-only' if in_home else 'yes'}",
            "PrivateTmp=yes",
            f"PrivateDevices={'no' if self.gpu else 'yes'}",
            "ProtectClock=yes",
            "ProtectControlGroups=yes",
            "ProtectHostname=yes",
            "ProtectKernelLogs=yes",
            "ProtectKernelModules=yes",
            "ProtectKernelTunables=yes",
            "ProtectProc=invisible",
            "LockPersonality=yes",
            "RemoveIPC=yes",
            "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
            "RestrictNamespaces=yes",
            "RestrictRealtime=yes",
            "RestrictSUIDSGID=yes",
            "SystemCallArchitectures=native",
            "SystemCallFilter=@system-service",
            "SystemCallErrorNumber=EPERM",
        ]  # fmt: skip

    def _rights_of_user(self) -> list[str]:
        """Restrictions available to a user's service manager; they need user namespaces."""
        return [
            "NoNewPrivileges=yes",
            "PrivateUsers=yes",
            "ProtectSystem=strict",
            f"ReadWritePaths={quoted(str(self.data))}",
            "PrivateTmp=yes",
            "LockPersonality=yes",
            "RestrictRealtime=yes",
            "SystemCallArchitectures=native",
        ]


def has_low_port(words: Sequence[str]) -> bool:
    """Whether arguments of ``fxpipe serve`` contain a port below 1024."""
    text = " ".join(words)
    ports = re.findall(r"--[a-z-]*port[= ](\d+)", text)
    return any(0 < int(port) < _LOW_PORTS for port in ports)


def quoted(word: str) -> str:
    """Quote a word for a unit file, see systemd.syntax(7).

    In commands, ``$`` must also be doubled.

    Raises:
        ValueError: It contains a control character.
    """
    if not word.isprintable():
        raise ValueError(f"found {word!r}, expected text without control characters")
    escaped = word.replace("%", "%%")
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./$-]+", escaped):
        return escaped
    escaped = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_below(path: Path, folders: Sequence[str]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
