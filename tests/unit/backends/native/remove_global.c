/* Reads tables, each after its size, and writes what `forking.c` leaves of them, likewise. */

#include "forking.c"

typedef unsigned long size_type;
void *malloc(size_type size);
void free(void *memory);
long read(int fd, void *to, size_type size);
long write(int fd, const void *from, size_type size);

int perform(const struct library *library, int *slots, const struct program *program)
{
    (void)library, (void)slots, (void)program;
    return 0;
}

long sandpool_branch(struct branch *branch)
{
    (void)branch;
    return -1;
}

static int reads(void *to, unsigned size)
{
    unsigned have = 0;
    for (long more; have < size; have += (unsigned)more)
        if ((more = read(0, (byte *)to + have, size - have)) <= 0)
            return 0;
    return 1;
}

int main(void)
{
    unsigned size;
    while (reads(&size, sizeof size)) {
        byte *table = malloc(size ? size : 1); /* so that one byte too many is found */
        if (!reads(table, size))
            return 1;
        size = (unsigned)remove_global(table, size);
        if (write(1, &size, sizeof size) < 0 || write(1, table, size) < 0)
            return 1;
        free(table);
    }
    return 0;
}
