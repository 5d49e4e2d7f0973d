/* A request of the host, as far as it is plain. */

#ifndef SANDPOOL_REQUEST_H
#define SANDPOOL_REQUEST_H

#include "steps.h"
#include "writing.h"

/* A time or a number that there is none of. */
static const long none = -1;

static const long second = 1000 * 1000 * 1000;

struct request {
    enum { HELLO, PING, WARM, BIND, RUN_CODE } op;
    long epoch, version, timeout, limit;
    struct text code, env; /* as JSON has them */
};

/* Whether these bytes are a request that is plain; it points at them then. */
__attribute__((visibility("hidden"))) int read_request(const byte *at, const byte *end,
                                                       struct request *request);

/* Writes a string's characters as UTF-8, with surrogates that are in no pair as they are; returns
 * how many bytes that takes, which is never more than it has, or -1 for an escape that there is not.
 */
__attribute__((visibility("hidden"))) long decode_string(struct text text, byte *to);

#endif
