/* What `plain.c` is told and tells; `plain.py` lays it out. */

#ifndef SANDPOOL_PLAIN_H
#define SANDPOOL_PLAIN_H

#include "steps.h"

struct plain {
    struct library library;
    int *slots;
    /* What is to be said and done, made ready beforehand. */
    long version;           /* of the protocol, which `hello` must be of */
    struct text hello;      /* the answer to that */
    struct text order[2];   /* to the spare: what comes before the environment, and after it */
    struct program create;  /* makes the file of code */
    struct program remove;  /* removes what that has made, as far as it is there */
    struct program connect; /* makes what a guest shares with its spare */
    struct role spare;      /* of a child that is to wait for its order */
    struct role hurried;    /* of one whose order is on its way */
    unsigned long *tag;     /* the hard and soft limit that marks the next spare; see `kin.py` */
    /* What of it is in which slot. */
    long host, code, input, output, error, orders;

    /* How far we have come.  Numbers are -1 where there is none. */
    long pid;       /* of the spare, or of the run */
    long is_parked;  /* whether the spare has said that it waits */
    long epoch;
    long request; /* the run's */
    long started; /* nanoseconds of the monotonic clock, as all times are */
    long ended; /* 0 before the first run has */
    long timeout;
    long credit;
    long left[2];         /* bytes of each output that may still be passed on */
    long is_truncated[2]; /* whether some were not */
    long has_ended[2];    /* whether nothing more can come */
    long status;          /* what the run ended with */
    long fork_at;         /* when the next spare is due */
    long pause;           /* from the answer until then */
    long late_since;
    struct text env;       /* given by `hello`, as JSON */
    struct text bound_env; /* given by `bind` */
    struct text late;     /* frames that go with the next ones, or after a moment */
    struct text unsent;   /* the rest of frames that the host has begun to read */
    struct text rest;     /* what has come from the host, and is not dealt with */
};

/* Returns when Python is to go on. */
__attribute__((visibility("hidden"))) void serve(struct plain *plain);

#endif
