/* `plain.c` with a host, a kernel and a spare that do whatever a sequence of random numbers says.
 *
 *     plain_harness SEED ROUNDS [FILE...]     each file holds frames to begin with
 *
 * It is built with sanitizers, which end it where it reads or writes what is not its own; what else
 * must hold is checked after each turn.  The headers of a C library would have names of their own
 * for what `plain.c` defines, so that what is needed of it is declared here.
 */

#include "branch.c"
#include "plain.c"
#include "request.c"

typedef unsigned long size_type;
void *malloc(size_type size);
void free(void *memory);
void *memcpy(void *to, const void *from, size_type size);
void abort(void);
long strtol(const char *text, char **stop, int base);
int printf(const char *format, ...);
int open(const char *path, int flags, ...);
long read(int fd, void *to, size_type size);
int *__errno_location(void);

enum { MOST = 1 << 18, FILES = 64, SHORT = 200, SPARE_PID = 77 };

static unsigned long state;
static byte seeds[FILES][MOST];
static long sizes[FILES], count;
static byte stream[2 * MOST];
static long stream_size, stream_at;
static long clock_now = 1000000000L;

static unsigned long next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static long below(long limit)
{
    return (long)(next() % (unsigned long)limit);
}

static void check(int condition, const char *what)
{
    if (!condition) {
        printf("%s\n", what);
        abort();
    }
}

static long fail(int error)
{
    *__errno_location() = error;
    return -1;
}

static long reads(byte *to, long room)
{
    if (room == 1 || below(8) == 0) /* of the spare */
        return below(4) ? (*to = 'p', 1) : 0;
    if (below(4) == 0)
        return below(2) ? 0 : fail(EAGAIN);
    long size = 1 + below(room);
    for (long index = 0; index < size; index++)
        to[index] = 'x';
    return size;
}

static long receives(byte *to, long room)
{
    if (stream_at == stream_size)
        return fail(EAGAIN);
    long size = 1 + below(below(2) ? 40 : room);
    if (size > room)
        size = room;
    if (size > stream_size - stream_at)
        size = stream_size - stream_at;
    memcpy(to, stream + stream_at, (size_type)size);
    stream_at += size;
    return size;
}

static long polls(struct pollfd *watched, long number)
{
    for (long index = 0; index < number; index++)
        watched[index].revents = watched[index].fd >= 0 && below(2) ? POLLIN : 0;
    clock_now += below(4) ? 1000 : 20 * 1000 * 1000;
    return 0;
}

static long kernel(long number, ...)
{
    long a[3] = {0, 0, 0};
    __builtin_va_list given;
    __builtin_va_start(given, number);
    /* None of those that are looked at needs more. */
    for (int index = 0; index < 3; index++)
        a[index] = __builtin_va_arg(given, long);
    __builtin_va_end(given);
    switch (number) {
    case __NR_clock_gettime:
        ((struct __kernel_timespec *)a[1])->tv_sec = clock_now / second;
        ((struct __kernel_timespec *)a[1])->tv_nsec = clock_now % second;
        return 0;
    case __NR_read:
        return reads((byte *)a[1], (int)a[2]);
    case __NR_recvfrom:
        return receives((byte *)a[1], a[2]);
    case __NR_sendto:
    case __NR_write: {
        byte sum = 0;
        for (long index = 0; index < a[2]; index++)
            sum = (byte)(sum + ((const byte *)a[1])[index]); /* all of it is there */
        if (below(200) == 0)
            return sum & 1 ? fail(EAGAIN) : below(a[2] + 1);
        return a[2];
    }
    case __NR_ioctl:
        *(int *)a[2] = (int)below(2);
        return 0;
    case __NR_getrandom:
        return below(200) ? (int)a[1] : 0;
    case __NR_wait4:
        if (below(10))
            return below(2) ? 0 : fail(ECHILD);
        *(int *)a[1] = (int)below(1 << 16) & 0xff7f;
        return below(2) ? SPARE_PID : 5;
    case __NR_ppoll:
        return polls((struct pollfd *)a[0], a[1]);
    }
    return 0;
}

static int forks(void)
{
    return below(20) ? SPARE_PID : -1;
}

/* Each string in memory of its own, so that one byte too many is seen. */
static void try_strings(const byte *from, long size)
{
    byte *copy = malloc((size_type)size);
    memcpy(copy, from, (size_type)size);
    struct request request;
    if (read_request(copy, copy + size, &request) && request.code.start) {
        byte *to = malloc((size_type)request.code.size + 1);
        long length = decode_string(request.code, to);
        check(length <= request.code.size, "decoded code is longer than it was");
        free(to);
    }
    free(copy);
}

static void mutate(void)
{
    stream_size = stream_at = 0;
    for (long frames = 1 + below(30); frames > 0; frames--) {
        long chosen = below(count), size = sizes[chosen];
        if (stream_size + size > MOST)
            break;
        byte *frame = stream + stream_size;
        memcpy(frame, seeds[chosen], (size_type)size);
        for (long changes = below(3) ? 0 : 1 + below(4); changes > 0 && size > HEADER; changes--) {
            byte *at = frame + (below(8) ? HEADER + below(size - HEADER) : below(HEADER));
            *at = below(2) ? (byte)next() : (byte)"{}[]\",:\\u0dn9.e"[below(15)];
        }
        if (below(10) == 0 && size > HEADER) { /* cut short, and the header says so */
            size = HEADER + below(size - HEADER);
            put_number(frame, (unsigned long)(size - HEADER));
        }
        try_strings(frame + (size > HEADER ? HEADER : 0), size > HEADER ? size - HEADER : size);
        stream_size += size;
    }
}

static void go_through(void)
{
    int slots[64];
    unsigned long tag[2] = {1UL << 60, 1UL << 60};
    const byte text[] = "0123456789";
    struct plain plain = {
        .library = {.syscall = kernel, .fork = forks, .error = __errno_location},
        .slots = slots,
        .version = 1,
        .hello = {text, 10},
        .order = {{text, 10}, {text, 3}},
        .tag = tag,
        .host = 0, .code = 30, .input = 23, .output = 24, .error = 26, .orders = 28,
        .pid = SPARE_PID, .epoch = none, .request = none, .timeout = none, .status = none,
        .fork_at = none,
    };
    for (int slot = 0; slot < 64; slot++)
        slots[slot] = slot;
    mutate();
    plain.rest.size = 0;
    for (int turns = 0; turns < 200; turns++) {
        enum outcome outcome = turn(&plain, 9);
        check(outcome == DONE || outcome == NOT_PLAIN, "a turn ends with no outcome");
        check(plain.rest.size >= 0 && plain.rest.size <= CHUNK, "more is left than there is room");
        check(plain.late.size >= 0 && plain.late.size <= LATE, "more is late than there is room");
        check(plain.credit >= 0 && plain.left[0] >= 0 && plain.left[1] >= 0, "more than allowed");
        check(!plain.unsent.size || outcome == NOT_PLAIN, "what is unsent is forgotten");
        check(plain.unsent.size <= (long)sizeof produced, "more is unsent than was made");
        if (outcome == NOT_PLAIN)
            return;
        check(plain.request == none || plain.pid != none, "a run without a process");
    }
}

int main(int argc, char **argv)
{
    state = (unsigned long)strtol(argv[1], 0, 10) | 1;
    for (int index = 3; index < argc && count < FILES; index++, count++)
        sizes[count] = read(open(argv[index], 0), seeds[count], MOST);
    for (long index = 0; index < count; index++)
        for (long size = HEADER; size <= sizes[index] && size < SHORT; size++)
            try_strings(seeds[index] + HEADER, size - HEADER);
    for (long round = strtol(argv[2], 0, 10); round > 0; round--)
        go_through();
    return 0;
}
