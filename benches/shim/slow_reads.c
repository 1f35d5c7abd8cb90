/* Preloaded into a PostgreSQL server: each read of a page of a relation waits as it would on remote storage.
 *
 * Reads of files under base/ wait SLOW_READS_US microseconds, in processes that made their first such read while the file
 * SLOW_READS_WHILE was there; so tables can be filled and compared at full speed. Temporary files and WAL are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

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

static int is_relation(int fd) {
    char link[32], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    return strstr(path, "/base/") != NULL && strstr(path, "pgsql_tmp") == NULL;
}

static void wait_for_storage(int fd) {
    if (is_relation(fd) && wait_us() > 0)
        usleep(wait_us());
}

#define SLOW(name, type, argument)                                                                  \
    ssize_t name(int fd, type buffer, argument size, off_t offset) {                                \
        static ssize_t (*next)(int, type, argument, off_t);                                         \
        if (next == NULL)                                                                           \
            *(void **)&next = dlsym(RTLD_NEXT, #name);                                              \
        wait_for_storage(fd);                                                                       \
        return next(fd, buffer, size, offset);                                                      \
    }

SLOW(pread, void *, size_t)
SLOW(pread64, void *, size_t)
SLOW(preadv, const struct iovec *, int)
SLOW(preadv64, const struct iovec *, int)
