/* Serves the host of a template for as long as it asks for plain things only: to fork a sandbox of
 * a kind that is known, and to kill one.
 *
 * A template in Python would write to a hundred shared pages for that, each of which is copied for
 * it, and kept by the sandbox that was forked before.  Whatever else comes is left as it is, and
 * `process.py`, which can do all of this, too, does it and comes back.
 *
 *     F1  What comes from the host is left in the socket until it is known to be plain.
 *     F2  A child has its place in `children` before the host hears of it, until it has been reaped.
 */

#include <asm-generic/socket.h>
#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/poll.h>
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/sched.h>
#include <linux/time.h>
#include <linux/uio.h>
#include <linux/wait.h>

#include "forking.h"
#include "writing.h"

#if __SIZEOF_LONG__ != 8
#error "numbers of packets have 64 bits here"
#endif

enum { CREATE = 1, KILL = 2 };
enum { CREATED = 1, EXITED = 3 };
enum { RIGHTS = 1, CREDENTIALS = 2 }; /* SCM_... */
enum { NO_SIGNAL = 0x4000, CLOSE_ON_EXEC = 0x40000000 }; /* MSG_..., as the next: */
enum { PEEK_WHOLE_SIZE_NOW = 0x62 };
enum { LONGEST_TABLE = 16384 };

struct packet {
    long op, number, kind, base;
};

struct event {
    long name, number, value;
};

struct message {
    void *name;
    int name_size;
    struct iovec *parts;
    unsigned long count;
    void *more;
    unsigned long more_size;
    unsigned flags;
};

struct rights {
    unsigned long size;
    int level, kind;
    int fd, padding;
};

struct credentials {
    unsigned long size;
    int level, kind;
    int pid, user, group, padding;
};

enum outcome {
    DONE,
    NOT_PLAIN, /* Python goes on with it */
    IN_CHILD,
};

static int error_of(const struct forking *forking)
{
    return *forking->library.error();
}

/* ---- The host ---- */

/* Says what has happened; with it a process, if it is not 0, which the kernel translates. */
static void tell(struct forking *forking, long name, long number, long value, int pid)
{
    struct event event = {name, number, value};
    struct iovec part = {&event, sizeof event};
    struct credentials about = {sizeof about - sizeof about.padding, SOL_SOCKET, CREDENTIALS, pid,
                                (int)forking->identity[0], (int)forking->identity[1], 0};
    struct message message = {0, 0, &part, 1, pid ? &about : 0, pid ? sizeof about : 0, 0};
    long sent = CALL(forking, sendmsg, forking->control, &message, NO_SIGNAL);
    int error = sent < 0 ? error_of(forking) : 0;
    /* If the host is gone, the end of the socket says so, too. */
    if (error && error != EPIPE && error != ECONNRESET && error != ENOTCONN)
        CALL(forking, exit_group, 1); /* it would never know of a sandbox */
}

/* Takes a packet, and the descriptor that comes with it; -1: none does. */
static int take_packet(struct forking *forking, struct packet *packet)
{
    struct rights rights = {0, 0, 0, -1, 0};
    struct iovec part = {packet, sizeof *packet};
    struct message message = {0, 0, &part, 1, &rights, sizeof rights, 0};
    CALL(forking, recvmsg, forking->control, &message, CLOSE_ON_EXEC);
    return message.more_size && rights.level == SOL_SOCKET && rights.kind == RIGHTS ? rights.fd : -1;
}

/* ---- Network namespaces ---- */

static int is_digit(byte character)
{
    return character >= '0' && character <= '9';
}

/* Returns how long the name at `at` is, if it is one whose figure is the whole machine's. */
static long find_global(const byte *at, const byte *end)
{
    static const char *const names[] = {" alloc ", " mem ", " memory ", " orphan "};
    for (int index = 0; index < 4; index++) {
        long size = 0;
        while (at + size < end && names[index][size] && at[size] == (byte)names[index][size])
            size++;
        if (!names[index][size] && at + size < end && is_digit(at[size]))
            return size;
    }
    return 0;
}

/* Removes figures that are the whole machine's, with their names, as `networks.py` does. */
static long remove_global(byte *start, long size)
{
    const byte *at = start, *end = start + size;
    byte *to = start;
    while (at < end) {
        long name = find_global(at, end);
        if (name == 0) {
            *to++ = *at++;
            continue;
        }
        for (at += name; at < end && is_digit(*at);)
            at++;
    }
    return to - start;
}

static int looks_new(struct forking *forking, const struct table *table)
{
    static byte found[LONGEST_TABLE];
    long size = 0;
    long fd = CALL(forking, openat, 0, table->path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        size = CALL(forking, read, fd, found, sizeof found);
        CALL(forking, close, fd);
    } else if (error_of(forking) != ENOENT)
        return 0;
    if (size > 0 && table->has_global)
        size = remove_global(found, size);
    if (size != table->new.size)
        return 0;
    for (long index = 0; index < size; index++)
        if (found[index] != table->new.start[index])
            return 0;
    return 1;
}

/* Makes one; returns -1 where that cannot be done, and Python will say why. */
static int make_network(struct forking *forking)
{
    int is_made = perform(&forking->library, forking->slots, &forking->stock.make);
    return is_made ? forking->slots[forking->network] : -1;
}

/* Makes one ahead, for whom comes when those that have been given back are all in use: these were
 * in use a moment ago, and shall not pile up. */
static enum outcome make_ahead(struct forking *forking)
{
    struct stock *stock = &forking->stock;
    int made = make_network(forking);
    if (made < 0)
        return NOT_PLAIN;
    for (long place = stock->count++; place > 0; place--)
        stock->networks[place] = stock->networks[place - 1];
    stock->networks[0] = made;
    return DONE;
}

/* Keeps one whose processes are all gone, if it is as new; lets it go otherwise. */
static void give_back(struct forking *forking, int network)
{
    struct stock *stock = &forking->stock;
    int is_new = stock->count < NETWORKS &&
                 CALL(forking, setns, network, CLONE_NEWNET) == 0;
    for (int index = 0; index < TABLES && is_new; index++)
        is_new = looks_new(forking, &stock->tables[index]);
    if (is_new)
        stock->networks[stock->count++] = network;
    else
        CALL(forking, close, network);
}

/* ---- Sandboxes ---- */

static struct child *find_number(struct forking *forking, long number)
{
    for (long place = 0; place < forking->child_count; place++)
        if (forking->children[place].number == number)
            return &forking->children[place];
    return 0;
}

static struct child *find_place(struct forking *forking)
{
    struct child *found = find_number(forking, 0);
    if (!found && forking->child_count < forking->places)
        found = &forking->children[forking->child_count++];
    return found;
}

/* ---- User namespaces ---- */

static long open_of(struct forking *forking, long pid, const char *name, int flags)
{
    byte path[64];
    *put_text(put_decimal(path, pid, 1), name) = 0;
    return CALL(forking, openat, forking->proc, path, flags | O_CLOEXEC);
}

static int write_map(struct forking *forking, long pid, const char *name, long base, long count)
{
    byte text[64], *at = put_decimal(put_text(text, "0 "), base, 1);
    at = put_decimal(put_text(at, " "), count, 1);
    long fd = open_of(forking, pid, name, O_WRONLY);
    if (fd < 0)
        return 0;
    long written = CALL(forking, write, fd, text, at - text);
    CALL(forking, close, fd);
    return written == at - text;
}

/* Makes one, which a process is in while we, who may, write which ids it has; returns -1 where that
 * cannot be done, and Python will say why. */
static long make_user(struct forking *forking, long base, long count)
{
    int ends[2];
    byte said;
    long made = -1;
    if (CALL(forking, pipe2, ends, O_CLOEXEC) != 0)
        return -1;
    long pid = forking->library.fork();
    if (pid == 0) {
        if (CALL(forking, unshare, CLONE_NEWUSER) == 0 && CALL(forking, write, ends[1], "u", 1) == 1)
            CALL(forking, ppoll, 0, 0, 0, 0, 0); /* until it is killed */
        CALL(forking, exit_group, 1);
    }
    CALL(forking, close, ends[1]);
    if (pid > 0) {
        if (CALL(forking, read, ends[0], &said, 1) == 1 &&
            write_map(forking, pid, "/uid_map", base, count) &&
            write_map(forking, pid, "/gid_map", base, count))
            made = open_of(forking, pid, "/ns/user", O_RDONLY);
        CALL(forking, kill, pid, SIGKILL);
        CALL(forking, wait4, pid, 0, 0, 0);
    }
    CALL(forking, close, ends[0]);
    return made;
}

static long find_user(struct forking *forking, long base, long count)
{
    for (long place = 0; place < forking->user_count; place++)
        if (forking->users[place].base == base)
            return forking->users[place].fd;
    if (forking->user_count == forking->places_of_users)
        return -1;
    long made = make_user(forking, base, count);
    if (made >= 0)
        forking->users[forking->user_count++] = (struct user){base, made};
    return made;
}

static enum outcome create(struct forking *forking, const struct packet *asked)
{
    struct packet packet = *asked;
    long user = -1;
    if (packet.kind < 0 || packet.kind >= KINDS)
        return NOT_PLAIN;
    const struct kind *kind = &forking->kinds[packet.kind];
    struct child *child = find_place(forking);
    if (!kind->way || !child)
        return NOT_PLAIN;
    if (packet.base >= 0 && (user = find_user(forking, packet.base, kind->ids)) < 0)
        return NOT_PLAIN;
    struct stock *stock = &forking->stock;
    int network = stock->count > 0 ? stock->networks[--stock->count] : make_network(forking);
    if (network < 0)
        return NOT_PLAIN;
    int guest = take_packet(forking, &packet);
    int *slots = forking->slots;
    forking->kind = packet.kind;
    slots[forking->guest] = guest;
    slots[forking->network] = network;
    if (user >= 0) {
        slots[forking->user] = (int)user;
        slots[forking->root] = (int)packet.base;
        slots[forking->owner] = (int)(packet.base + forking->tenant);
    }
    long pid = sandpool_branch(kind->way);
    if (pid == 0)
        return IN_CHILD;
    CALL(forking, close, guest);
    if (pid < -1)
        CALL(forking, exit_group, 1); /* a template that is not where it was is none any more */
    if (pid < 0) {
        CALL(forking, close, network);
        tell(forking, EXITED, packet.number, -(long)slots[ERROR], 0);
        return DONE;
    }
    *child = (struct child){packet.number, (int)pid, network}; /* Invariant F2 */
    tell(forking, CREATED, packet.number, 0, (int)pid);
    return DONE;
}

static enum outcome receive(struct forking *forking)
{
    struct packet packet;
    long size = CALL(forking, recvfrom, forking->control, &packet, sizeof packet,
                     PEEK_WHOLE_SIZE_NOW, 0, 0);
    if (size < 0 && (error_of(forking) == EAGAIN || error_of(forking) == EINTR))
        return DONE;
    if (size != sizeof packet)
        return NOT_PLAIN; /* Invariant F1 */
    if (packet.op == CREATE)
        return create(forking, &packet);
    if (packet.op != KILL)
        return NOT_PLAIN;
    take_packet(forking, &packet);
    struct child *child = packet.number ? find_number(forking, packet.number) : 0;
    if (child)
        CALL(forking, kill, child->pid, SIGKILL);
    return DONE;
}

/* ---- The loop ---- */

static void reap(struct forking *forking)
{
    byte news[1024];
    CALL(forking, read, forking->news, news, sizeof news);
    for (;;) {
        int status = 0;
        long pid = CALL(forking, wait4, -1, &status, WNOHANG, 0);
        if (pid <= 0)
            return;
        for (long place = 0; place < forking->child_count; place++) {
            struct child *child = &forking->children[place];
            if (child->number == 0 || child->pid != pid)
                continue;
            long number = child->number;
            child->number = 0;
            if (child->network >= 0)
                give_back(forking, child->network);
            tell(forking, EXITED, number, status, 0);
            break;
        }
    }
}

/* Returns 0 in a sandbox that it has forked, and 1 where Python is to go on. */
long sandpool_fork_on_request(struct forking *forking)
{
    enum { HOST, CHILDREN, COUNT };
    for (;;) {
        struct pollfd watched[COUNT] = {{(int)forking->control, POLLIN, 0},
                                        {(int)forking->news, POLLIN, 0}};
        int is_short = forking->stock.count < forking->stock.wanted;
        struct __kernel_timespec at_once = {0, 0};
        long count = CALL(forking, ppoll, watched, COUNT, is_short ? &at_once : 0, 0, 0);
        enum outcome outcome = count == 0 ? make_ahead(forking) : DONE;
        if (watched[CHILDREN].revents)
            reap(forking);
        if (watched[HOST].revents)
            outcome = receive(forking);
        /* A sandbox has its own copy of all this, and no business with it. */
        if (outcome != DONE)
            return outcome == NOT_PLAIN;
    }
}
