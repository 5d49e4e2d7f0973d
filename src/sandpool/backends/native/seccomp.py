"""The seccomp filters of every sandbox, compiled once by libseccomp.

There are two, and a call must pass both.

- `outer` is loaded by the template and inherited from it, because loading costs time that grows
  with the length of a filter.  It allows what is listed and denies everything else.  The list has
  what ordinary programs use, as the default profile of Docker does, less what that one allows and
  no tenant needs.
- `inner` is loaded by each sandbox's first process, once that is in its jail.  It is short: it
  denies the few calls that making a jail takes, and arguments that no list of calls can tell.

What is denied on purpose fails with EPERM.  What is in neither list fails with ENOSYS, as on a
kernel that does not have it: programs that can do without know how to.

No other layer rests on these filters: they narrow what of the kernel a tenant can reach.
"""

from __future__ import annotations

import errno
import importlib
import platform
import tempfile
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyseccomp

_ALLOWED = """
    accept accept4 access alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
    chown32 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
    getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom
    getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getuid32 getxattr inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
    io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
    listxattr llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat open openat openat2 pause
    pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
    process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead
    readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages
    removexattr rename renameat renameat2 restart_syscall riscv_flush_icache riscv_hwprobe rmdir
    rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid
    setuid32 setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    sigprocmask sigreturn splice stat stat64 statfs statfs64 statx swapcontext symlink symlinkat
    sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
    tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev
"""

_FOR_THE_JAIL = (
    "mount",
    "umount2",
    "unshare",
    "setns",
    "open_tree",
    "move_mount",
    "mount_setattr",
    "sethostname",
    "keyctl",
)
"""Calls that template and jail make after `outer` is loaded; `inner` denies them."""

_CALLS = """
    capset chdir close close_range dup3 fchdir fchmodat fchownat ioctl keyctl
    landlock_restrict_self mkdirat mount mount_setattr move_mount open_tree openat pipe2 prctl
    prlimit64 read recvfrom rt_sigprocmask setfsgid setfsuid setgroups setns setresgid setresuid
    setsid socket socketpair umount2 unlinkat unshare write
"""
"""What a template makes by number."""

_DENIED = """
    _sysctl acct add_key adjtimex bpf chroot clock_adjtime clock_settime create_module
    delete_module fanotify_init fanotify_mark finit_module fsconfig fsmount fsopen fspick
    get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp
    kexec_file_load kexec_load lookup_dcookie mbind migrate_pages modify_ldt
    move_pages name_to_handle_at nfsservctl open_by_handle_at open_tree_attr perf_event_open
    pidfd_getfd pivot_root process_madvise quotactl quotactl_fd reboot request_key set_mempolicy
    set_mempolicy_home_node setdomainname settimeofday stime swapoff swapon syslog umount uselib
    userfaultfd ustat vhangup vm86 vm86old
"""
"""Known calls that no tenant needs, or with a long history of holes."""

_NAMESPACES = tuple(1 << bit for bit in (17, 25, 26, 27, 28, 29, 30))
"""The flags of clone that ask for new namespaces: mount, cgroup, uts, ipc, user, pid, network."""
_CLONE_FLAGS = 1 if platform.machine() == "s390x" else 0
"""Which argument of clone has its flags."""
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0
_PERSONALITIES = (0x0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, 0xFFFF_FFFF)
"""Linux and 32-bit Linux, each with its true or an old version number; without a random layout, as
debuggers ask for; and the question which one it is."""
_TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_BINARY_TREE = 2


class Filters(NamedTuple):
    """Two filters as BPF instructions, for `template/kernel.py` to load."""

    outer: bytes
    inner: bytes


def missing() -> str | None:
    """Say why filters cannot be made here; None if they can."""
    try:
        importlib.import_module("pyseccomp")
    except (ImportError, RuntimeError, OSError) as error:
        return f"libseccomp is missing ({error})"
    return None


@cache
def numbers() -> dict[str, int]:
    """Return the numbers that this machine has for the calls of a jail.

    One that neither kernel nor library knows has -1, with which it fails as unknown.
    """
    import pyseccomp as lib

    arch = lib.system_arch()
    return {name: max(-1, lib.resolve_syscall(arch, name)) for name in _CALLS.split()}


@cache
def filters() -> Filters:
    """Return the filters; other architectures' system calls end the process in both."""
    return Filters(_outer(), _inner())


def _outer() -> bytes:
    import pyseccomp as lib

    filter_ = lib.SyscallFilter(defaction=lib.ERRNO(errno.ENOSYS))
    filter_.set_attr(lib.Attr.CTL_OPTIMIZE, _BINARY_TREE)
    _add(filter_, lib.ALLOW, _ALLOWED.split())
    _add(filter_, lib.ALLOW, _FOR_THE_JAIL)
    _add(filter_, lib.ERRNO(errno.EPERM), _DENIED.split())
    # clone3 has its flags in memory, out of a filter's sight: it stays ENOSYS, and the C libraries
    # fall back to clone.
    plain = lib.Arg(_CLONE_FLAGS, lib.MASKED_EQ, sum(_NAMESPACES), 0)
    filter_.add_rule(lib.ALLOW, "clone", plain)
    for flag in _NAMESPACES:
        asked = lib.Arg(_CLONE_FLAGS, lib.MASKED_EQ, flag, flag)
        filter_.add_rule(lib.ERRNO(errno.EPERM), "clone", asked)
    for personality in _PERSONALITIES:
        filter_.add_rule(lib.ALLOW, "personality", lib.Arg(0, lib.EQ, personality))
    _add_sockets(filter_)
    return _export(filter_)


def _add_sockets(filter_: pyseccomp.SyscallFilter) -> None:
    import pyseccomp as lib

    no_family = lib.ERRNO(errno.EAFNOSUPPORT)
    for name in ("socket", "socketpair"):
        for family in range(_AF_NETLINK):
            is_known = family in (_AF_UNIX, _AF_INET, _AF_INET6)
            filter_.add_rule(lib.ALLOW if is_known else no_family, name, lib.Arg(0, lib.EQ, family))
        filter_.add_rule(no_family, name, lib.Arg(0, lib.GT, _AF_NETLINK))
    filter_.add_rule(
        lib.ALLOW, "socket", lib.Arg(0, lib.EQ, _AF_NETLINK), lib.Arg(2, lib.EQ, _NETLINK_ROUTE)
    )


def _inner() -> bytes:
    import pyseccomp as lib

    denied = lib.ERRNO(errno.EPERM)
    filter_ = lib.SyscallFilter(defaction=lib.ALLOW)
    _add(filter_, denied, _FOR_THE_JAIL)
    for request in _TERMINAL_INJECTION:
        # The kernel looks at the low half only.
        filter_.add_rule(denied, "ioctl", lib.Arg(1, lib.MASKED_EQ, 0xFFFF_FFFF, request))
    return _export(filter_)


def _add(filter_: pyseccomp.SyscallFilter, action: int, names: Iterable[str]) -> None:
    for name in names:
        try:
            filter_.add_rule(action, name)
        except (RuntimeError, OSError, ValueError):
            continue  # a call that this architecture or library does not know


def _export(filter_: pyseccomp.SyscallFilter) -> bytes:
    with tempfile.TemporaryFile() as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()
