"""The sandbox of a process that handles untrusted input. Entering it is irrevocable.

With seccomp, on x86-64 and ARM64 Linux, only system calls that work on open descriptors
remain, besides memory and time. The process cannot open, change or remove a file,
create a socket, run a program, start a process, start a thread (unless that is asked
for), or send a signal. With Landlock, access to the file system and TCP is denied as
well. Either layer is enough; a layer that the kernel lacks is skipped, and `missing`
reports it. The limits of `voicechat.processes.fork_server` apply everywhere.
"""

import ctypes
import errno
import platform
import struct
import sys

_SYS_LANDLOCK_CREATE_RULESET, _SYS_LANDLOCK_RESTRICT_SELF = 444, 446  # on every architecture
_LANDLOCK_VERSION = 1
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2

# Rights that Landlock handles from each version of its interface on: linux/landlock.h.
_FILE_RIGHTS = ((1, (1 << 13) - 1), (2, 1 << 13), (3, 1 << 14), (5, 1 << 15))
_TCP_RIGHTS = ((4, 0b11),)
_SCOPES = ((6, 0b11),)

_CALLS_X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "munmap": 11, "brk": 12,
    "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20, "select": 23, "sched_yield": 24,
    "mremap": 25, "madvise": 28, "nanosleep": 35, "setitimer": 38, "getpid": 39, "sendto": 44,
    "recvfrom": 45, "shutdown": 48, "exit": 60, "gettimeofday": 96, "getrusage": 98, "times": 100,
    "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204,
    "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230,
    "exit_group": 231, "pselect6": 270, "ppoll": 271, "getrandom": 318, "membarrier": 324,
    "rseq": 334,
}  # fmt: skip
_CALLS_ARM64 = {
    "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67,
    "pselect6": 72, "ppoll": 73, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98,
    "nanosleep": 101, "setitimer": 103, "clock_gettime": 113, "clock_getres": 114,
    "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128,
    "sigaltstack": 132, "rt_sigreturn": 139, "times": 153, "getrusage": 165, "gettimeofday": 169,
    "getpid": 172, "gettid": 178, "sendto": 206, "recvfrom": 207, "shutdown": 210, "brk": 214,
    "munmap": 215, "mremap": 216, "madvise": 233, "getrandom": 278, "membarrier": 283, "rseq": 293,
}  # fmt: skip
_MAPPING_X86_64, _MAPPING_ARM64 = (9, 10), (222, 226)
"""mmap and mprotect: allowed except for executable memory."""
_THREADS_X86_64, _THREADS_ARM64 = (56, 435), (220, 435)
"""clone, which may be allowed for threads only, and clone3, whose flags a filter cannot
read: it fails with ENOSYS, so that the C library uses clone.
"""
_MACHINES = {
    "x86_64": (0xC000003E, _CALLS_X86_64, _MAPPING_X86_64, _THREADS_X86_64),
    "aarch64": (0xC00000B7, _CALLS_ARM64, _MAPPING_ARM64, _THREADS_ARM64),
}
"""For each machine: its AUDIT_ARCH value and its system call numbers."""

# Instructions of classic BPF (linux/bpf_common.h) and the filter's return values.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_NO_SUCH_CALL = 0x00050000 | errno.ENOSYS
_AT_CALL, _AT_MACHINE, _AT_FIRST_ARGUMENT, _AT_THIRD_ARGUMENT = 0, 4, 16, 32
_OTHER_CALLS = 0x40000000
"""On x86-64, numbers from here on are x32 system calls."""
_PROT_EXEC = 4
_CLONE_THREAD = 0x10000


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def missing() -> tuple[str, ...]:
    """Return the names of the layers that this kernel or container does not support."""
    layers = {"seccomp": _has_seccomp(), "Landlock": _landlock_version() > 0}
    return tuple(name for name, there in layers.items() if not there)


def close_everything(*, threads: bool = False) -> None:
    """Enter the sandbox with all supported layers. Raises ``OSError`` if one fails.

    ``threads``: new threads may be started; they are in the sandbox, too.
    """
    if sys.platform != "linux":
        return
    _check(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if version := _landlock_version():
        _close_by_landlock(version)
    if _has_seccomp():
        _close_by_seccomp(threads=threads)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"the sandbox cannot be closed: {errno.errorcode.get(code, code)}")
    return result


def _landlock_version() -> int:
    """The version of Landlock's ABI; 0 if it is missing or disabled."""
    if sys.platform != "linux":
        return 0
    return max(
        0,
        int(
            _libc().syscall(
                _SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION
            )
        ),
    )


def _close_by_landlock(version: int) -> None:
    """Handle every access right that the kernel knows, and allow none."""
    parts = [
        sum(rights for since, rights in table if since <= version)
        for table, since in ((_FILE_RIGHTS, 1), (_TCP_RIGHTS, 4), (_SCOPES, 6))
        if since <= version
    ]
    handled = struct.pack(f"{len(parts)}Q", *parts)
    size = ctypes.c_size_t(len(handled))
    rules = _check(_libc().syscall(_SYS_LANDLOCK_CREATE_RULESET, handled, size, 0))
    _check(_libc().syscall(_SYS_LANDLOCK_RESTRICT_SELF, rules, 0))


def _has_seccomp() -> bool:
    if sys.platform != "linux" or platform.machine() not in _MACHINES or sys.maxsize < 1 << 32:
        return False
    # With a null program, a kernel that supports filters fails with EFAULT, any other
    # with EINVAL.
    refused = _libc().prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None, 0, 0)
    return bool(refused < 0 and ctypes.get_errno() == errno.EFAULT)


def _close_by_seccomp(*, threads: bool) -> None:
    instructions = _filter(threads=threads)
    program = _Program(len(instructions) // 8, instructions)
    _check(_libc().prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0))


def _filter(*, threads: bool) -> bytes:
    """Build the BPF program that runs at each system call. Unlisted calls fail with
    EPERM.
    """
    machine, calls, mapping, (clone, clone3) = _MACHINES[platform.machine()]
    numbers = sorted(calls.values())
    starting_threads = [
        (_IF_EQUAL, 0, 1, clone3),
        (_RETURN, 0, 0, _NO_SUCH_CALL),
        (_IF_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
        (_IF_BITS, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL),
    ]
    code = [
        (_LOAD, 0, 0, _AT_MACHINE),
        (_IF_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _AT_CALL),
        *(starting_threads if threads else ()),
        (_IF_AT_LEAST, len(numbers) + len(mapping), 0, _OTHER_CALLS),
        *(
            (_IF_EQUAL, len(numbers) - at + len(mapping), 0, number)
            for at, number in enumerate(numbers)
        ),
        *((_IF_EQUAL, len(mapping) - at + 1, 0, number) for at, number in enumerate(mapping)),
        (_RETURN, 0, 0, _FAIL),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _AT_THIRD_ARGUMENT),
        (_IF_BITS, 0, 1, _PROT_EXEC),
        (_RETURN, 0, 0, _FAIL),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
