/* Reads requests from JSON: one object without spaces, in ASCII, of fields that `plain.c` knows.
 *
 * What it does not understand wholly it does not take, and Python reads it again.
 */

#include "request.h"

static const long forever = 10L * 365 * 24 * 3600;

static int is_text(struct text text, const char *expected)
{
    long index = 0;
    while (index < text.size && expected[index] && text.start[index] == (byte)expected[index])
        index++;
    return index == text.size && !expected[index];
}

/* Takes a string; what is escaped in it stays so. */
static int take_string(const byte **at, const byte *end, struct text *found)
{
    const byte *here = *at;
    if (here >= end || *here++ != '"')
        return 0;
    found->start = here;
    for (; here < end && *here != '"'; here++) {
        if (*here < 0x20 || *here > 0x7e)
            return 0;
        if (*here == '\\' && ++here >= end)
            return 0;
    }
    found->size = here - found->start;
    *at = here + 1;
    return here < end;
}

/* Whether a string, as JSON has it, has no character by its number, and no unknown escape. */
static int is_simple(struct text text)
{
    for (long index = 0; index < text.size; index++)
        if (text.start[index] == '\\') {
            const char *known = "\"\\/bfnrt";
            index++;
            while (*known && *known != text.start[index])
                known++;
            if (!*known)
                return 0;
        }
    return 1;
}

/* Takes a number as so many of its billionths. */
static int take_number(const byte **at, const byte *end, long *whole, long *billionths)
{
    const byte *here = *at, *begin = here;
    for (*whole = 0; here < end && *here >= '0' && *here <= '9'; here++) {
        if (here - begin == 18)
            return 0;
        *whole = *whole * 10 + (*here - '0');
    }
    if (here == begin || (*begin == '0' && here - begin > 1))
        return 0;
    *billionths = 0;
    if (here < end && *here == '.') {
        const byte *point = here++;
        long worth = second / 10;
        for (; here < end && *here >= '0' && *here <= '9'; here++, worth /= 10)
            *billionths += worth * (*here - '0');
        if (here - point < 2)
            return 0;
        *at = here;
        return 1;
    }
    *billionths = none;
    *at = here;
    return 1;
}

static int take_integer(const byte **at, const byte *end, long *found)
{
    long billionths;
    return *found == none && take_number(at, end, found, &billionths) && billionths == none;
}

static int take_seconds(const byte **at, const byte *end, long *found)
{
    long whole, billionths;
    if (*found != none || !take_number(at, end, &whole, &billionths) || whole >= forever)
        return 0;
    *found = whole * second + (billionths == none ? 0 : billionths);
    return *found > 0;
}

static int take_null(const byte **at, const byte *end)
{
    const byte *here = *at;
    if (end - here < 4 || here[0] != 'n' || here[1] != 'u' || here[2] != 'l' || here[3] != 'l')
        return 0;
    *at = here + 4;
    return 1;
}

static int take_variable(const byte **at, const byte *end)
{
    struct text name, value;
    if (!take_string(at, end, &name) || name.size == 0 || *at >= end || *(*at)++ != ':')
        return 0;
    for (long index = 0; index < name.size; index++)
        if (name.start[index] == '=' || name.start[index] == '\\')
            return 0;
    return take_null(at, end) || (take_string(at, end, &value) && is_simple(value));
}

/* Takes an object of variables, each a string or null. */
static int take_environment(const byte **at, const byte *end, struct text *found)
{
    const byte *here = *at;
    if (end - here < 2 || *here++ != '{')
        return 0;
    if (*here != '}')
        do {
            if (!take_variable(&here, end) || here >= end || (*here != ',' && *here != '}'))
                return 0;
        } while (*here++ == ',');
    else
        here++;
    found->start = *at;
    found->size = here - *at;
    *at = here;
    return 1;
}

static int take_op(const byte **at, const byte *end, struct request *request)
{
    static const char *const names[] = {"hello", "ping", "warm", "bind", "run_code"};
    struct text name;
    if (!take_string(at, end, &name))
        return 0;
    for (int op = HELLO; op <= RUN_CODE; op++)
        if (is_text(name, names[op])) {
            request->op = op;
            return 1;
        }
    return 0;
}

/* Whether the fields are those that `op` has, each of them once. */
static int is_complete(const struct request *request)
{
    int has_code = request->code.start != 0, has_limits = request->timeout >= 0 || request->limit >= 0;
    switch (request->op) {
    case HELLO:
        return request->version >= 0 && request->epoch < 0 && !has_code && !has_limits;
    case BIND:
        return request->epoch >= 0 && request->version < 0 && !has_code && !has_limits;
    case RUN_CODE:
        return has_code && request->version < 0;
    default:
        return request->version < 0 && !request->env.start && !has_code && !has_limits;
    }
}

int read_request(const byte *at, const byte *end, struct request *request)
{
    int has_op = 0;
    request->epoch = request->version = request->timeout = request->limit = none;
    request->code.start = request->env.start = 0;
    request->env.size = 0;
    if (at >= end || *at++ != '{')
        return 0;
    for (;;) {
        struct text name;
        if (!take_string(&at, end, &name) || at >= end || *at++ != ':')
            return 0;
        int is_known = 0;
        if (is_text(name, "op"))
            is_known = !has_op++ && take_op(&at, end, request);
        else if (is_text(name, "epoch"))
            is_known = take_integer(&at, end, &request->epoch);
        else if (is_text(name, "version"))
            is_known = take_integer(&at, end, &request->version);
        else if (is_text(name, "max_output"))
            is_known = take_integer(&at, end, &request->limit);
        else if (is_text(name, "timeout"))
            is_known = take_seconds(&at, end, &request->timeout);
        else if (is_text(name, "env"))
            is_known = !request->env.start && take_environment(&at, end, &request->env);
        else if (is_text(name, "code"))
            is_known = !request->code.start && take_string(&at, end, &request->code);
        if (!is_known || at >= end)
            return 0;
        if (*at == '}')
            return at + 1 == end && has_op && is_complete(request);
        if (*at++ != ',')
            return 0;
    }
}

static long take_hexadecimal(const byte *at, const byte *end)
{
    long value = 0;
    if (end - at < 4)
        return none;
    for (int index = 0; index < 4; index++) {
        int digit = at[index];
        if (digit >= '0' && digit <= '9')
            digit -= '0';
        else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f')
            digit = (digit | 0x20) - 'a' + 10;
        else
            return none;
        value = value << 4 | digit;
    }
    return value;
}

static byte *put_character(byte *at, long code)
{
    if (code < 0x80) {
        *at++ = (byte)code;
        return at;
    }
    int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const byte first[] = {0, 0xc0, 0xe0, 0xf0};
    *at++ = (byte)(first[more] | code >> 6 * more);
    while (more-- > 0)
        *at++ = (byte)(0x80 | (code >> 6 * more & 0x3f));
    return at;
}

long decode_string(struct text text, byte *to)
{
    const byte *at = text.start, *end = at + text.size;
    byte *here = to;
    while (at < end) {
        if (*at != '\\') {
            *here++ = *at++;
            continue;
        }
        static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
        int escaped = at[1], index = 0;
        at += 2;
        if (escaped == 'u') {
            long code = take_hexadecimal(at, end), low = none;
            if (code < 0)
                return none;
            at += 4;
            if (code >= 0xd800 && code < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u')
                low = take_hexadecimal(at + 2, end);
            if (low >= 0xdc00 && low < 0xe000) {
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                at += 6;
            }
            here = put_character(here, code);
            continue;
        }
        while (names[index] && names[index] != escaped)
            index++;
        if (!names[index])
            return none;
        *here++ = (byte)meant[index];
    }
    return here - to;
}
