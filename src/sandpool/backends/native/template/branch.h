/* What `branch.c` has for a template. */

#ifndef SANDPOOL_BRANCH_H
#define SANDPOOL_BRANCH_H

#include "steps.h"

struct branch;

/* Returns the child's pid, and 0 in it; below zero nothing was forked, and a slot says why. */
long sandpool_branch(struct branch *branch);

#endif
