/* System calls as data: what `calls.py` lays out, and what follows it.
 *
 * Nothing here is linked to anything, not even to a C library, so that it loads into whatever
 * interpreter an image has.  The few functions that it needs are handed to it.
 */

#ifndef SANDPOOL_STEPS_H
#define SANDPOOL_STEPS_H

struct step {
    long number;
    long arguments[6];
    long is_slot;  /* bit N: argument N is the slot of a number */
    long saved;    /* the slot for the result, or -1 */
    long forgiven; /* an errno that is no failure; -1: all of them */
    long least;    /* what a result must not be below */
};

struct program {
    const struct step *steps;
    long count;
};

struct text {
    const unsigned char *start;
    long size;
};

struct library {
    long (*syscall)(long number, ...);
    int (*fork)(void);
    int *(*error)(void); /* where errno is */
    /* Of the interpreter, whose lock we have. */
    void (*before_fork)(void);
    void (*after_fork_in_parent)(void);
    void (*after_fork)(void);
    void *(*call)(void *function, void *arguments);
};

/* A system call by what has a library, each argument as a long, which is what the function takes of
 * those that it has no types for. */
#define CALL(caller, name, ...) CALL_6(caller, __NR_##name, __VA_ARGS__, 0, 0, 0, 0, 0)
#define CALL_6(caller, number, a, b, c, d, e, f, ...)                                              \
    ((caller)->library.syscall(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e),      \
                               (long)(f)))

/* Slots that tell how it went. */
enum {
    FAILED = 61, /* the step that failed, or -1 */
    ERROR = 62,  /* its errno, or that of the fork */
    CHILD = 63   /* in the child: the pid of its own, or -1 */
};

/* What a child becomes: it follows the program and calls the function, which does not return. */
struct role {
    struct program program;
    void *function;
};

/* Returns whether all went well; the slots say so, too. */
__attribute__((visibility("hidden"))) int perform(const struct library *library, int *slots,
                                                  const struct program *program);

__attribute__((visibility("hidden"))) _Noreturn void become(const struct library *library,
                                                            int *slots, const struct role *role);

#endif
