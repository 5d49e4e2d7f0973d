/* Writing bytes one after the other; each function returns where the next goes. */

#ifndef SANDPOOL_WRITING_H
#define SANDPOOL_WRITING_H

typedef unsigned char byte;

static inline byte *put_text(byte *at, const char *text)
{
    while (*text)
        *at++ = (byte)*text++;
    return at;
}

static inline byte *put_bytes(byte *at, const byte *bytes, long size)
{
    for (long index = 0; index < size; index++)
        at[index] = bytes[index];
    return at + size;
}

static inline byte *put_decimal(byte *at, long value, int digits)
{
    byte reversed[20];
    int count = 0;
    for (; value > 0 || count < digits; value /= 10)
        reversed[count++] = (byte)('0' + value % 10);
    while (count > 0)
        *at++ = reversed[--count];
    return at;
}

#endif
