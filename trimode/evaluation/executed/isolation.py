"""Namespaces and a file system of its own for the calling process, by the kernel's own calls. Linux alone."""

import ctypes
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000  # unshare(2)
NOSUID, NODEV, BIND, REC, PRIVATE = 2, 4, 4096, 16384, 1 << 18  # mount(2)
NOBODY = 65534
# What Python itself needs, beside its own library; nothing of it is anybody's data.
SHOWN = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/nix/store")
DEVICES = ("/dev/null", "/dev/urandom")


def isolate(folder: str, folder_mb: int) -> None:
    """New namespaces for this process and its children, and nothing of the file system but Python and an empty folder.

    Root stays outside a user namespace: the runner becomes an unprivileged user instead. Raises OSError.
    """
    user, group = os.geteuid(), os.getegid()
    own = NEWNS | NEWPID | NEWNET | NEWIPC
    call("unshare", LIBC.unshare, own if user == 0 else own | NEWUSER)
    if user != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    os.umask(0o022)
    mount(None, "/", None, REC | PRIVATE)
    mount("tmpfs", folder, "tmpfs", NOSUID, "size=1m,mode=755")
    for path in filter(os.path.exists, dict.fromkeys([*SHOWN, *DEVICES, os.path.join(sys.base_prefix, "lib")])):
        show(path, folder + path)
    work = os.path.join(folder, "work")
    os.mkdir(work)
    make_read_only(folder)
    mount("tmpfs", work, "tmpfs", NOSUID | NODEV, f"size={folder_mb}m,nr_inodes=1000,mode=777")
    os.chroot(folder)
    os.chdir("/work")


def show(path: str, target: str) -> None:
    """Bind a file or folder to `target`, which is made."""
    os.makedirs(target if os.path.isdir(path) else os.path.dirname(target), exist_ok=True)
    if not os.path.isdir(path):
        open(target, "w", encoding="ascii").close()
    mount(path, target, None, BIND | REC)


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    call(f"mount {target}", LIBC.mount, *texts[:3], ctypes.c_ulong(flags), texts[3])


def make_read_only(folder: str) -> None:
    """mount_setattr(2) on all below: read-only, no set-user-id. Linux 5.12."""
    attributes = struct.pack("<4Q", 1 | 2, 0, 0, 0)
    call("mount_setattr", LIBC.syscall, 442, -100, os.fsencode(folder), 0x8000, attributes, len(attributes))


def die_with_parent() -> None:
    """So that nothing is left where the parent is killed."""
    control(1, 9)  # PR_SET_PDEATHSIG, SIGKILL


def drop_privileges() -> None:
    """Become an unprivileged user if this is root, with no capability and no way to gain one."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    control(38, 1)  # PR_SET_NO_NEW_PRIVS
    call("capset", LIBC.capset, struct.pack("<Ii", 0x20080522, 0), bytes(24))


def control(what: int, value: int) -> None:
    if sys.platform == "linux":
        call("prctl", LIBC.prctl, what, value, 0, 0, 0)


def call(name: str, function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
