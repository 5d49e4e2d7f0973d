/* Forks a sandbox's first process and that one's spare, and takes both through their calls, all
 * without Python, which would write to shared pages wherever it goes.  What is done is decided in
 * Python (`jail.py`) and read from memory here (`calls.py`, whose structures these are);
 * `branch.py` does the same without this file.
 *
 * It is linked to nothing, not even to a C library, so that it loads into whatever interpreter an
 * image has.  The few functions that it needs are handed to it.
 */

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

struct library {
    long (*syscall)(long number, ...);
    int (*fork)(void);
    int *(*error)(void); /* where errno is */
};

struct branch {
    struct library library;
    struct program before; /* by the parent, before the fork */
    struct program after;  /* by the parent, whatever came of the fork */
    struct program first;  /* by the child */
    struct program second; /* by the child of the child */
    long is_twice;         /* whether there is such a one */
    int *slots;
};

/* Slots that tell how it went. */
enum {
    FAILED = 61, /* the step that failed, or -1 */
    ERROR = 62,  /* its errno, or that of the fork */
    CHILD = 63   /* in the child: the pid of its own, or -1; in that one: 0 */
};

static const long bad_protocol = 71; /* EPROTO: a result too low, and no error */

static int perform(struct branch *branch, const struct program *program)
{
    int *slots = branch->slots;
    for (long index = 0; index < program->count; index++) {
        const struct step *step = &program->steps[index];
        long arguments[6];
        for (int place = 0; place < 6; place++) {
            arguments[place] = step->arguments[place];
            if (step->is_slot >> place & 1)
                arguments[place] = slots[arguments[place]];
        }
        long result = branch->library.syscall(step->number, arguments[0], arguments[1],
                                              arguments[2], arguments[3], arguments[4],
                                              arguments[5]);
        long error = result < 0 ? *branch->library.error() : bad_protocol;
        if (result < step->least && step->forgiven != -1 && step->forgiven != error) {
            slots[FAILED] = (int)index;
            slots[ERROR] = (int)error;
            return 0;
        }
        if (step->saved >= 0)
            slots[step->saved] = (int)result;
    }
    slots[FAILED] = -1;
    return 1;
}

/* Returns what the fork did; below zero nothing was forked, and a slot says why. */
long sandpool_branch(struct branch *branch)
{
    int *slots = branch->slots;
    if (!perform(branch, &branch->before))
        return -1;
    long pid = branch->library.fork();
    if (pid != 0) {
        int error = *branch->library.error();
        if (!perform(branch, &branch->after))
            return -2; /* the parent is not where it was */
        slots[ERROR] = error;
        return pid;
    }
    slots[CHILD] = -1;
    if (perform(branch, &branch->first) && branch->is_twice) {
        slots[CHILD] = branch->library.fork();
        if (slots[CHILD] == 0)
            perform(branch, &branch->second);
    }
    return 0;
}

/* What `branch.py` has to agree with. */
const long sandpool_branch_size = sizeof(struct branch) * 1000 + sizeof(struct step);
