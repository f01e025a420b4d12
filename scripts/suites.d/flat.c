/*
 * pjdfstest makes a directory for the run and, inside it, one per test. A flat mount has no directories, so the run's
 * directory stays outside and the mount ($FLAT_MOUNT) is bound over each test's. Preload in a private mount namespace.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_test_directory(const char *path)
{
	const char *run = strstr(path, "/.tmp");
	const char *test = run ? strchr(run + 1, '/') : NULL;

	return test && strncmp(test, "/.tmp", 5) == 0 && !strchr(test + 1, '/');
}

/* The tests pass bad pointers on purpose: a path may be looked at only after the kernel has accepted it. */

int mkdir(const char *path, mode_t mode)
{
	int rc = syscall(SYS_mkdirat, AT_FDCWD, path, mode);

	if (rc == 0 && is_test_directory(path) && mount(getenv("FLAT_MOUNT"), path, NULL, MS_BIND, NULL) != 0) {
		perror("bind FLAT_MOUNT");
		_exit(125);
	}
	return rc;
}

int unlinkat(int dir, const char *path, int flags)
{
	int rc = syscall(SYS_unlinkat, dir, path, flags);

	if (rc != 0 && errno == EBUSY && (flags & AT_REMOVEDIR) && is_test_directory(path) && umount2(path, MNT_DETACH) == 0)
		rc = syscall(SYS_unlinkat, dir, path, flags);
	return rc;
}
