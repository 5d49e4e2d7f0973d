/* Forks a sandbox's first process and that one's spare, and takes both through their calls, all
 * without Python, which would write to shared pages wherever it goes.  What is done is decided in
 * Python (`jail.py`) and read from memory here; `branch.py` does the same without this file.
 */

#include <asm/unistd.h>

#include "branch.h"
#include "forking.h"
#include "plain.h"

struct branch {
    struct library library;
    struct program before; /* by the parent, before the fork */
    struct program after;  /* by the parent, whatever came of the fork */
    struct program first;  /* by the child */
    struct role second;    /* of the child of the child */
    long is_twice;         /* whether there is such a one */
    int *slots;
    struct plain *plain; /* what the child then serves; or null */
};

static const long bad_protocol = 71; /* EPROTO: a result too low, and no error */

int perform(const struct library *library, int *slots, const struct program *program)
{
    for (long index = 0; index < program->count; index++) {
        const struct step *step = &program->steps[index];
        long arguments[6];
        for (int place = 0; place < 6; place++) {
            arguments[place] = step->arguments[place];
            if (step->is_slot >> place & 1)
                arguments[place] = slots[arguments[place]];
        }
        long result = library->syscall(step->number, arguments[0], arguments[1], arguments[2],
                                       arguments[3], arguments[4], arguments[5]);
        long error = result < 0 ? *library->error() : bad_protocol;
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

_Noreturn void become(const struct library *library, int *slots, const struct role *role)
{
    if (perform(library, slots, &role->program)) {
        /* Not by returning to whoever has called us: what is freed on that way is copied first. */
        library->after_fork();
        library->call(role->function, 0);
    }
    for (;;)
        library->syscall(__NR_exit_group, 1);
}

/* Returns the child's pid in the parent, and 0 in the child. */
static long fork_between(const struct branch *branch)
{
    const struct library *library = &branch->library;
    if (!perform(library, branch->slots, &branch->before))
        return -1;
    long pid = library->fork();
    if (pid == 0)
        return 0;
    int error = *library->error();
    if (!perform(library, branch->slots, &branch->after))
        return -2; /* the parent is not where it was */
    branch->slots[ERROR] = error;
    return pid;
}

long sandpool_branch(struct branch *branch)
{
    const struct library *library = &branch->library;
    int *slots = branch->slots;
    library->before_fork();
    long pid = fork_between(branch);
    if (pid != 0) {
        library->after_fork_in_parent();
        return pid;
    }
    slots[CHILD] = -1;
    if (!perform(library, slots, &branch->first) || !branch->is_twice)
        return 0;
    slots[CHILD] = library->fork();
    if (slots[CHILD] == 0)
        become(library, slots, &branch->second);
    if (slots[CHILD] > 0 && branch->plain)
        serve(branch->plain);
    return 0;
}

/* What `branch.py` has to agree with. */
const long sandpool_sizes[] = {sizeof(struct step), sizeof(struct branch), sizeof(struct plain),
                               sizeof(struct forking)};
