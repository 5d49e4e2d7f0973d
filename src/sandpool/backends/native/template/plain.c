/* Serves a sandbox as its process 1 for as long as it is asked for plain things only: to say who it
 * is, to be ready, to be bound to a lease, and to run code that brings nothing but limits.
 *
 * A guest in Python would copy two megabytes of shared pages for that.  Whatever else comes, a frame
 * or an event, is left as it is, and `plain.py` tells the guest in Python how far this has come; it
 * goes on from there.  So this file answers nothing with an error, and has no rules of its own: it
 * does what `sandpool/guest` does, for those requests that it understands wholly.
 *
 *     P1  What comes from the host is left in `received`, from the first frame on that is not plain.
 *     P2  Nothing but the spare, or the run that it has become, is a process of the sandbox while
 *         we serve; what a run leaves behind is for Python.
 *     P3  At most one run at a time, and then no spare.
 */

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/poll.h>
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/time.h>
#include <linux/wait.h>

#include "plain.h"
#include "request.h"

#if __SIZEOF_LONG__ != 8
#error "numbers of system calls, and times in nanoseconds, have 64 bits here"
#endif

enum { REQUEST = 1, CREDIT = 4, RESPONSE = 7, EVENT = 9, STDOUT = 10 };
enum { HEADER = 9, CHUNK = 64 * 1024, LATE = 512, ANSWER = 256, INITIAL_CREDIT = 512 * 1024 };
enum { MANY = 512 }; /* children to be reaped at once */
enum { NOW_OR_NEVER = 0x4040 }; /* MSG_DONTWAIT and MSG_NOSIGNAL */

static const long patience = 2 * 1000 * 1000; /* of late frames */
/* Until the next spare is forked: a sandbox of one run never pays for a second one, and a fork after
 * later runs waits until the host, which may be waiting for our processor, has got its answer. */
static const long first_pause = 10 * 1000 * 1000, later_pause = 500 * 1000;

static byte received[CHUNK];
static byte produced[LATE + HEADER + CHUNK];
static byte late[LATE];
static byte decoded[CHUNK];
static byte ordered[CHUNK];
static byte env[CHUNK];
static byte bound_env[CHUNK];

enum outcome {
    DONE,
    NOT_YET,
    NOT_PLAIN, /* Python goes on with it */
};

/* ---- The host's frames ---- */

static unsigned long number_at(const byte *at)
{
    return (unsigned long)at[0] << 24 | (unsigned long)at[1] << 16 | (unsigned long)at[2] << 8 | at[3];
}

static byte *put_number(byte *at, unsigned long value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        *at++ = (byte)(value >> shift);
    return at;
}

static byte *put_header(byte *at, long size, long request, int kind)
{
    at = put_number(at, (unsigned long)size);
    at = put_number(at, (unsigned long)request);
    *at++ = (byte)kind;
    return at;
}

/* ---- What we say ---- */

static long now(struct plain *plain)
{
    struct __kernel_timespec time;
    CALL(plain, clock_gettime, CLOCK_MONOTONIC, &time);
    return time.tv_sec * second + time.tv_nsec;
}

static _Noreturn void end(struct plain *plain)
{
    /* The kernel ends every other process of the sandbox with us. */
    for (;;)
        CALL(plain, exit_group, 0);
}

static int host_of(struct plain *plain)
{
    return plain->slots[plain->host];
}

/* Sends what begins at `start` of `produced`, with the late frames before it: room is left there. */
static enum outcome send(struct plain *plain, byte *start, byte *stop)
{
    start -= plain->late.size;
    put_bytes(start, late, plain->late.size);
    plain->late.size = 0;
    long sent = CALL(plain, sendto, host_of(plain), start, stop - start,
                     NOW_OR_NEVER, 0, 0);
    if (sent < 0) {
        if (*plain->library.error() != EAGAIN)
            end(plain);
        sent = 0;
    }
    plain->unsent.start = start + sent;
    plain->unsent.size = stop - start - sent;
    return plain->unsent.size ? NOT_PLAIN : DONE;
}

/* Answers a request, which is dealt with then, whatever of the answer is still unsent. */
static enum outcome respond(struct plain *plain, long request, struct text payload)
{
    byte *at = put_header(produced + LATE, payload.size, request, RESPONSE);
    send(plain, produced + LATE, put_bytes(at, payload.start, payload.size));
    return DONE;
}

static const struct text nothing = {(const byte *)"{}", 2};

/* Adds a frame to those that nobody waits for; what is written there has room for `ANSWER` bytes. */
static enum outcome make_late(struct plain *plain, byte **at)
{
    if (plain->late.size + ANSWER > LATE && send(plain, produced + LATE, produced + LATE) != DONE)
        return NOT_PLAIN;
    if (plain->late.size == 0)
        plain->late_since = now(plain);
    *at = late + plain->late.size;
    return DONE;
}

/* ---- The spare ---- */

static void close_slot(struct plain *plain, long slot)
{
    if (plain->slots[slot] >= 0)
        CALL(plain, close, plain->slots[slot]);
    plain->slots[slot] = -1;
}

static void close_theirs(struct plain *plain)
{
    close_slot(plain, plain->input - 1);
    close_slot(plain, plain->output + 1);
    close_slot(plain, plain->error + 1);
    close_slot(plain, plain->orders + 1);
}

static void close_ours(struct plain *plain)
{
    close_slot(plain, plain->input);
    close_slot(plain, plain->output);
    close_slot(plain, plain->error);
    close_slot(plain, plain->orders);
}

static void never_wait_for(struct plain *plain, long slot)
{
    CALL(plain, fcntl, plain->slots[slot], F_SETFL, O_NONBLOCK);
}

static void block_news_of_children(struct plain *plain, int how)
{
    unsigned long signals = 1UL << (SIGCHLD - 1);
    CALL(plain, rt_sigprocmask, how, &signals, 0, sizeof signals);
}

static enum outcome fork_spare(struct plain *plain, int is_hurried)
{
    unsigned long step = 0;
    plain->fork_at = none;
    if (CALL(plain, getrandom, &step, 5, 0) != 5)
        return NOT_PLAIN;
    if (!perform(&plain->library, plain->slots, &plain->connect)) {
        close_theirs(plain);
        close_ours(plain);
        return NOT_PLAIN;
    }
    plain->tag[0] = plain->tag[1] = plain->tag[0] - 1 - step;
    long pid = plain->library.fork();
    if (pid == 0) {
        block_news_of_children(plain, SIG_UNBLOCK);
        become(&plain->library, plain->slots, is_hurried ? &plain->hurried : &plain->spare);
    }
    close_theirs(plain);
    if (pid < 0) {
        close_ours(plain);
        return NOT_PLAIN;
    }
    plain->pid = pid;
    plain->is_parked = 0;
    never_wait_for(plain, plain->output);
    never_wait_for(plain, plain->error);
    return DONE;
}

/* Ends a spare that Python could do nothing with. */
static void give_up_spare(struct plain *plain)
{
    plain->is_parked = 0;
    CALL(plain, kill, plain->pid, SIGKILL);
}

static enum outcome hear_spare(struct plain *plain)
{
    byte said;
    if (CALL(plain, read, plain->slots[plain->orders], &said, 1) != 1)
        return NOT_PLAIN;
    plain->is_parked = 1;
    return DONE;
}

/* ---- A run ---- */

static enum outcome write_code(struct plain *plain, long size)
{
    long fd = plain->slots[plain->code], done = 0;
    while (done < size) {
        long count = CALL(plain, write, fd, decoded + done, size - done);
        if (count <= 0)
            break;
        done += count;
    }
    CALL(plain, close, fd);
    return done == size ? DONE : NOT_PLAIN;
}

static byte *put_little(byte *at, unsigned long value)
{
    for (int shift = 0; shift < 32; shift += 8)
        *at++ = (byte)(value >> shift);
    return at;
}

/* Writes an order, as `script.py` reads it, with the environment given in `changes`; returns its
 * size, or -1 if it is longer than a spare is sent at once.  */
static long write_order(struct plain *plain, struct text changes)
{
    struct text all[] = {plain->env, plain->bound_env, changes};
    long count = 0, size = 4 + plain->order[0].size + plain->order[1].size + 5;
    for (int index = 0; index < 3; index++)
        if (all[index].size > 0) {
            size += 5 + all[index].size;
            count++;
        }
    if (size > CHUNK)
        return none;
    byte *at = put_bytes(ordered + 4, plain->order[0].start, plain->order[0].size);
    /* As Python marshals it: nothing, or a tuple of bytes. */
    *at++ = count ? '(' : 'N';
    if (count)
        at = put_little(at, (unsigned long)count);
    for (int index = 0; index < 3; index++)
        if (all[index].size > 0) {
            *at++ = 's';
            at = put_little(at, (unsigned long)all[index].size);
            at = put_bytes(at, all[index].start, all[index].size);
        }
    at = put_bytes(at, plain->order[1].start, plain->order[1].size);
    put_number(ordered, (unsigned long)(at - ordered - 4));
    return at - ordered;
}

static void remove_code(struct plain *plain)
{
    perform(&plain->library, plain->slots, &plain->remove);
}

static enum outcome begin_run(struct plain *plain, long number, const struct request *request)
{
    byte *at;
    long size = decode_string(request->code, decoded);
    if (size < 0 || plain->request != none || request->epoch != plain->epoch)
        return NOT_PLAIN;
    long ordered_size = write_order(plain, request->env);
    if (ordered_size < 0 || make_late(plain, &at) != DONE)
        return NOT_PLAIN;
    int is_hurried = plain->pid == none;
    /* A host that leaves no time to make a spare ready gets the next one as soon as can be. */
    plain->pause = plain->ended == 0 ? first_pause : plain->is_parked ? later_pause : 0;
    if (is_hurried) {
        enum outcome forked = fork_spare(plain, 1);
        if (forked != DONE)
            return forked;
    }
    long orders = plain->slots[plain->orders];
    if (!perform(&plain->library, plain->slots, &plain->create) ||
        write_code(plain, size) != DONE) {
        remove_code(plain);
        if (is_hurried)
            give_up_spare(plain);
        return NOT_PLAIN;
    }
    plain->started = now(plain);
    if (CALL(plain, sendto, orders, ordered, ordered_size, NOW_OR_NEVER, 0, 0) != ordered_size) {
        /* Somebody has killed it, or tampered with it. */
        remove_code(plain);
        give_up_spare(plain);
        return NOT_PLAIN;
    }
    close_slot(plain, plain->orders);
    close_slot(plain, plain->input);
    plain->request = number;
    plain->timeout = request->timeout;
    plain->credit = INITIAL_CREDIT;
    plain->status = none;
    for (int index = 0; index < 2; index++) {
        plain->left[index] = request->limit == none ? __LONG_MAX__ : request->limit;
        plain->is_truncated[index] = plain->has_ended[index] = 0;
    }
    byte *payload = at + HEADER;
    byte *stop = put_decimal(put_text(payload, "{\"pid\":"), plain->pid, 1);
    *stop++ = '}';
    put_header(at, stop - payload, number, EVENT);
    plain->late.size = stop - late;
    return DONE;
}

static long output_of(struct plain *plain, int index)
{
    return index ? plain->error : plain->output;
}

static int wants_output(struct plain *plain, int index)
{
    return plain->request != none && !plain->has_ended[index] &&
           (plain->left[index] == 0 || plain->credit > 0);
}

static int is_empty(struct plain *plain, int index)
{
    int size = 0;
    return CALL(plain, ioctl, plain->slots[output_of(plain, index)], FIONREAD, &size) != 0 ||
           size == 0;
}

/* Passes on what there is room for. */
static enum outcome relay(struct plain *plain, int index)
{
    long fd = plain->slots[output_of(plain, index)], room = CHUNK;
    if (plain->left[index] > 0 && plain->credit < room)
        room = plain->credit;
    byte *start = produced + LATE, *data = start + HEADER;
    long size = CALL(plain, read, fd, data, room);
    if (size < 0 && *plain->library.error() == EAGAIN)
        return DONE; /* who can open the other end can open this one, too, and was faster */
    if (size <= 0) {
        plain->has_ended[index] = 1;
        return DONE;
    }
    if (size > plain->left[index]) {
        plain->is_truncated[index] = 1;
        size = plain->left[index];
    }
    plain->left[index] -= size;
    plain->credit -= size;
    if (size == 0)
        return DONE;
    put_header(start, size, plain->request, STDOUT + index);
    return send(plain, start, data + size);
}

static enum outcome end_run(struct plain *plain)
{
    long status = plain->status, signal = status & 0x7f, duration = plain->ended - plain->started;
    byte *start = produced + LATE, *payload = start + HEADER;
    byte *at = put_text(payload, "{\"exit_code\":");
    at = put_decimal(at, signal ? 128 + signal : status >> 8 & 0xff, 1);
    at = put_text(at, ",\"signal\":");
    at = signal ? put_decimal(at, signal, 1) : put_text(at, "null");
    at = put_text(at, ",\"timed_out\":false,\"truncated\":");
    at = put_text(at, plain->is_truncated[0] || plain->is_truncated[1] ? "true" : "false");
    at = put_text(at, ",\"duration\":");
    at = put_decimal(at, duration / second, 1);
    *at++ = '.';
    at = put_decimal(at, duration % second, 9);
    *at++ = '}';
    put_header(start, at - payload, plain->request, RESPONSE);
    /* First, and only then what nobody waits for. */
    enum outcome sent = send(plain, start, at);
    remove_code(plain);
    close_ours(plain);
    plain->request = plain->pid = none;
    plain->fork_at = now(plain) + plain->pause;
    return sent;
}

static enum outcome reap(struct plain *plain)
{
    for (int count = 0; count < MANY; count++) {
        int status = 0;
        long pid = CALL(plain, wait4, -1, &status, WNOHANG, 0);
        if (pid <= 0) {
            int is_over = plain->request != none && plain->status != none;
            /* Invariant P2. */
            return is_over && pid == 0 ? NOT_PLAIN : DONE;
        }
        if (pid != plain->pid)
            continue; /* an orphan */
        if (plain->request == none) {
            plain->pid = none;
            close_ours(plain);
            return NOT_PLAIN;
        }
        plain->status = status;
        plain->ended = now(plain);
    }
    return NOT_PLAIN; /* a fork bomb, which the host must not wait for */
}

/* ---- The host's requests ---- */

static void keep(struct text *kept, byte *place, struct text text)
{
    put_bytes(place, text.start, text.size);
    kept->start = place;
    kept->size = text.size;
}

static enum outcome obey(struct plain *plain, long number, const struct request *request)
{
    byte *at;
    switch (request->op) {
    case HELLO:
        if (request->version != plain->version || plain->epoch != none || plain->request != none)
            return NOT_PLAIN;
        if (request->env.size > 0 && plain->env.size > 0)
            return NOT_PLAIN; /* it adds to what was given before */
        if (request->env.size > 0)
            keep(&plain->env, env, request->env);
        return respond(plain, number, plain->hello);
    case PING:
        return respond(plain, number, nothing);
    case WARM:
        if (plain->request != none || request->epoch != plain->epoch)
            return NOT_PLAIN; /* Invariant P3 */
        if (plain->pid == none) {
            enum outcome forked = fork_spare(plain, 0);
            if (forked != DONE)
                return forked;
        }
        return plain->is_parked ? respond(plain, number, nothing) : NOT_YET;
    case BIND:
        if (plain->request != none || request->epoch < plain->epoch)
            return NOT_PLAIN;
        if (make_late(plain, &at) != DONE)
            return NOT_PLAIN;
        plain->epoch = request->epoch;
        keep(&plain->bound_env, bound_env, request->env);
        at = put_header(at, nothing.size, number, RESPONSE);
        plain->late.size = put_bytes(at, nothing.start, nothing.size) - late;
        return DONE;
    case RUN_CODE:
        return begin_run(plain, number, request);
    }
    return NOT_PLAIN;
}

static enum outcome take_frame(struct plain *plain, long number, int kind, struct text payload)
{
    if (kind == REQUEST) {
        struct request request;
        if (number == plain->request ||
            !read_request(payload.start, payload.start + payload.size, &request))
            return NOT_PLAIN;
        return obey(plain, number, &request);
    }
    if (number != plain->request)
        return DONE; /* it crossed our answer on the wire */
    if (kind != CREDIT || payload.size != 4)
        return NOT_PLAIN;
    plain->credit += (long)number_at(payload.start);
    return DONE;
}

/* Deals with the whole frames that have come. */
static enum outcome take_frames(struct plain *plain)
{
    enum outcome outcome = DONE;
    const byte *at = received, *stop = received + plain->rest.size;
    while (outcome == DONE && stop - at >= HEADER) {
        long size = (long)number_at(at), number = (long)number_at(at + 4);
        if (number == 0 || size > CHUNK - HEADER || at[8] < REQUEST || at[8] >= RESPONSE) {
            outcome = NOT_PLAIN;
            break;
        }
        if (stop - at < HEADER + size)
            break;
        struct text payload = {at + HEADER, size};
        outcome = take_frame(plain, number, at[8], payload);
        if (outcome == NOT_YET)
            /* What waits behind it may be about it, and Python would not have that wait. */
            outcome = stop - at > HEADER + size ? NOT_PLAIN : NOT_YET;
        if (outcome == DONE) {
            at += HEADER + size; /* Invariant P1 */
            if (plain->unsent.size > 0)
                outcome = NOT_PLAIN;
        }
    }
    plain->rest.size = stop - at;
    put_bytes(received, at, plain->rest.size);
    return outcome == NOT_YET ? DONE : outcome;
}

static enum outcome receive(struct plain *plain)
{
    long room = CHUNK - plain->rest.size;
    if (room == 0)
        return NOT_PLAIN; /* more than one frame waits behind one that is not dealt with */
    long size = CALL(plain, recvfrom, host_of(plain), received + plain->rest.size, room,
                     NOW_OR_NEVER, 0, 0);
    if (size < 0 && *plain->library.error() == EAGAIN)
        return DONE;
    if (size <= 0)
        end(plain);
    plain->rest.size += size;
    return take_frames(plain);
}

/* ---- The loop ---- */

static void watch(struct pollfd *watched, long fd, int is_wanted)
{
    watched->fd = is_wanted ? (int)fd : -1;
    watched->events = POLLIN;
    watched->revents = 0;
}

static long sooner(long deadline, long other)
{
    return deadline == none || other < deadline ? other : deadline;
}

/* Waits for what comes first, or, where there is `no_time`, only looks. */
static void wait(struct plain *plain, struct pollfd *watched, long count, int no_time)
{
    long deadline = none;
    int is_running = plain->request != none && plain->status == none;
    if (is_running && plain->timeout != none)
        deadline = plain->started + plain->timeout;
    if (plain->late.size > 0)
        deadline = sooner(deadline, plain->late_since + patience);
    if (plain->fork_at != none)
        deadline = sooner(deadline, plain->fork_at);
    if (no_time)
        deadline = 0;
    struct __kernel_timespec time = {0, 0};
    if (deadline > 0) {
        long left = deadline - now(plain);
        if (left > 0) {
            time.tv_sec = left / second;
            time.tv_nsec = left % second;
        }
    }
    CALL(plain, ppoll, watched, count, deadline == none ? 0 : &time, 0, 0);
}

/* What is due by now. */
static enum outcome keep_time(struct plain *plain)
{
    int is_running = plain->request != none && plain->status == none;
    if (!(is_running && plain->timeout != none) && plain->late.size == 0 && plain->fork_at == none)
        return DONE;
    long time = now(plain);
    if (is_running && plain->timeout != none && time >= plain->started + plain->timeout)
        return NOT_PLAIN;
    if (plain->late.size > 0 && time >= plain->late_since + patience &&
        send(plain, produced + LATE, produced + LATE) != DONE)
        return NOT_PLAIN;
    if (plain->fork_at == none || time < plain->fork_at)
        return DONE;
    return fork_spare(plain, 0);
}

static enum outcome turn(struct plain *plain, long children)
{
    enum { HOST, CHILDREN, SPARE, OUTPUTS, COUNT = OUTPUTS + 2 };
    struct pollfd watched[COUNT];
    watch(&watched[HOST], host_of(plain), 1);
    watch(&watched[CHILDREN], children, 1);
    watch(&watched[SPARE], plain->slots[plain->orders],
          plain->pid != none && plain->request == none && !plain->is_parked);
    int is_over = plain->request != none && plain->status != none, is_held_up = 0;
    for (int index = 0; index < 2; index++) {
        int is_wanted = wants_output(plain, index);
        watch(&watched[OUTPUTS + index], plain->slots[output_of(plain, index)], is_wanted);
        if (!is_over || is_wanted || plain->has_ended[index])
            continue;
        if (is_empty(plain, index))
            plain->has_ended[index] = 1;
        else
            is_held_up = 1; /* until there is credit */
    }
    wait(plain, watched, COUNT, is_over && !is_held_up);
    enum outcome outcome = DONE;
    for (int index = 0; index < 2 && outcome == DONE; index++) {
        struct pollfd *output = &watched[OUTPUTS + index];
        if (output->revents)
            outcome = relay(plain, index);
        else if (output->fd >= 0 && is_over)
            /* All that was in it has been read, and nobody is left who could write more. */
            plain->has_ended[index] = 1;
    }
    if (outcome == DONE && watched[CHILDREN].revents) {
        byte news[1024];
        CALL(plain, read, children, news, sizeof news);
        outcome = reap(plain);
    }
    if (outcome == DONE && watched[SPARE].revents) {
        outcome = hear_spare(plain);
        if (outcome == DONE)
            outcome = take_frames(plain);
    }
    if (outcome == DONE && plain->request != none && plain->status != none &&
        plain->has_ended[0] && plain->has_ended[1])
        outcome = end_run(plain);
    if (outcome == DONE && watched[HOST].revents)
        outcome = receive(plain);
    return outcome == DONE ? keep_time(plain) : outcome;
}

void serve(struct plain *plain)
{
    unsigned long signals = 1UL << (SIGCHLD - 1);
    plain->pid = plain->slots[CHILD];
    close_theirs(plain);
    never_wait_for(plain, plain->output);
    never_wait_for(plain, plain->error);
    block_news_of_children(plain, SIG_BLOCK);
    long children = CALL(plain, signalfd4, -1, &signals, sizeof signals, O_CLOEXEC | O_NONBLOCK);
    enum outcome outcome = children < 0 ? NOT_PLAIN : reap(plain);
    while (outcome == DONE)
        outcome = turn(plain, children);
    if (children >= 0)
        CALL(plain, close, children);
    block_news_of_children(plain, SIG_UNBLOCK);
    plain->slots[FAILED] = -1; /* that would be said of the jail */
    plain->late.start = late;
    plain->rest.start = received;
}
