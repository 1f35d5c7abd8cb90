/* Preloaded into a PostgreSQL server: each read of a page of a relation waits as it would on remote storage.
 *
 * Reads of files under base/ wait SLOW_READS_US microseconds, in processes that made their first such read while the file
 * SLOW_READS_WHILE was there; so tables can be filled and compared at full speed. Temporary files and WAL are left alone.
 * Files are told apart when they are opened: a look at each read would cost processors more than the read. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 65536

static unsigned char is_relation[FILES];

static useconds_t wait_us(void) {
    static int known = 0;
    static useconds_t wait = 0;
    if (!known) {
        const char *us = getenv("SLOW_READS_US"), *file = getenv("SLOW_READS_WHILE");
        wait = us != NULL && file != NULL && access(file, F_OK) == 0 ? (useconds_t)atoi(us) : 0;
        known = 1;
    }
    return wait;
}

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < FILES)
        is_relation[fd] = strncmp(path, "base/", 5) == 0 && strstr(path, "pgsql_tmp") == NULL;
    return fd;
}

static void wait_for_storage(int fd) {
    if (fd >= 0 && fd < FILES && is_relation[fd] && wait_us() > 0)
        usleep(wait_us());
}

#define NEXT(name)                                      \
    if (next == NULL)                                   \
        *(void **)&next = dlsym(RTLD_NEXT, #name);

#define OPEN(name)                                      \
    int name(const char *path, int flags, ...) {        \
        static int (*next)(const char *, int, ...);     \
        mode_t mode = 0;                                \
        if (flags & (O_CREAT | O_TMPFILE)) {            \
            va_list arguments;                          \
            va_start(arguments, flags);                 \
            mode = va_arg(arguments, mode_t);           \
            va_end(arguments);                          \
        }                                               \
        NEXT(name)                                      \
        return opened(next(path, flags, mode), path);   \
    }

#define READ(name, type, argument)                                  \
    ssize_t name(int fd, type buffer, argument size, off_t offset) { \
        static ssize_t (*next)(int, type, argument, off_t);         \
        NEXT(name)                                                  \
        wait_for_storage(fd);                                       \
        return next(fd, buffer, size, offset);                      \
    }

OPEN(open)
OPEN(open64)
READ(pread, void *, size_t)
READ(pread64, void *, size_t)
READ(preadv, const struct iovec *, int)
READ(preadv64, const struct iovec *, int)
