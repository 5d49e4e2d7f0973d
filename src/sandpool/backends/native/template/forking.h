/* What `forking.c` and a template in Python know in common; `forking.py` lays it out. */

#ifndef SANDPOOL_FORKING_H
#define SANDPOOL_FORKING_H

#include "branch.h"

struct child {
    long number; /* the host's; 0: there is no such child */
    int pid;
    int network; /* to be given back at its end, or -1 */
};

struct user {
    long base; /* the first of its ids on the host */
    long fd;
};

/* What the kernel shows of a network namespace, and shows of a new one. */
struct table {
    const char *path;
    struct text new;
    long has_global; /* whether some of its figures are the whole machine's */
};

enum { KINDS = 64, TABLES = 6, NETWORKS = 64 };

struct stock {
    struct program make; /* makes one, and leaves it in the slot of a network */
    long wanted;         /* with less than that, more are made when there is time */
    long count;
    int networks[NETWORKS]; /* the next one to be taken is the last */
    struct table tables[TABLES];
};

struct kind {
    struct branch *way; /* null where it takes Python */
    long ids;           /* that a sandbox has, where it has its own */
};

struct forking {
    struct library library;
    int *slots;
    long control;     /* the socket to the host */
    long news;        /* a signalfd for the ends of children */
    long proc;        /* the directory of our processes */
    long identity[2]; /* our user and group */
    /* What of a sandbox is in which slot, and the tenant's id in it. */
    long guest, network, user, root, owner, tenant;
    struct kind kinds[KINDS];
    struct stock stock;
    /* Of these and the next, what lies in higher places than are counted is none. */
    long user_count, places_of_users;
    struct user *users;
    long child_count, places;
    struct child *children;
    long kind; /* of the sandbox that was forked last */
};

#endif
