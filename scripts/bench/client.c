/*
 * The stop-watch: makes one kind of system calls again and again, and prints nanoseconds that passed, nanoseconds
 * that it ran, and how many operations they were.
 *
 *     client w1|wcat|pread|stat|miss ROUNDS <PATHS    each path of stdin, ROUNDS times
 *     client walk DIRECTORY                            every entry below it: lstat, and open to close of files
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char buffer[65536];
static long files;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static long now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static void report(long start, long started, long count)
{
	printf("%ld %ld %ld\n", now(CLOCK_MONOTONIC) - start, now(CLOCK_PROCESS_CPUTIME_ID) - started, count);
}

static void read_whole(const char *path, int look)
{
	struct stat st;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		fail(path);
	if (look && fstat(fd, &st))
		fail(path);
	while (read(fd, buffer, sizeof(buffer)) > 0)
		;
	close(fd);
}

static void walk(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY);
	DIR *directory = fdopendir(fd);
	struct dirent *entry;
	struct stat st;

	if (!directory)
		fail(name);
	while ((entry = readdir(directory))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			fail(entry->d_name);
		if (S_ISDIR(st.st_mode))
			walk(fd, entry->d_name);
		else if (S_ISREG(st.st_mode) && st.st_mode & 0444) {
			int file = openat(fd, entry->d_name, O_RDONLY);

			if (file < 0)
				fail(entry->d_name);
			while (read(file, buffer, sizeof(buffer)) > 0)
				;
			close(file);
			files++;
		}
	}
	closedir(directory);
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	long rounds, done = 0, start, started;
	char **paths = NULL, *line = NULL;
	size_t count = 0, size = 0;
	ssize_t length;

	if (!strcmp(what, "walk")) {
		start = now(CLOCK_MONOTONIC);
		started = now(CLOCK_PROCESS_CPUTIME_ID);
		walk(AT_FDCWD, argv[2]);
		report(start, started, files);
		return 0;
	}
	if (argc != 3) {
		fprintf(stderr, "usage: client w1|wcat|pread|stat|miss ROUNDS, or client walk DIRECTORY\n");
		return 2;
	}
	rounds = atol(argv[2]);
	while ((length = getline(&line, &size, stdin)) > 0) {
		paths = realloc(paths, (count + 1) * sizeof(*paths));
		line[length - 1] = 0;
		if (!paths || !(paths[count++] = strdup(line)))
			fail("memory");
	}
	start = now(CLOCK_MONOTONIC);
	started = now(CLOCK_PROCESS_CPUTIME_ID);
	for (size_t n = 0; n < count; n++) {
		struct stat st;
		int fd;

		if (!strcmp(what, "pread")) {
			fd = open(paths[n], O_RDONLY);
			if (fd < 0)
				fail(paths[n]);
			for (long round = 0; round < rounds; round++, done++)
				if (pread(fd, buffer, sizeof(buffer), 0) < 0)
					fail(paths[n]);
			close(fd);
		} else
			for (long round = 0; round < rounds; round++, done++) {
				if (!strcmp(what, "w1"))
					read_whole(paths[n], 0);
				else if (!strcmp(what, "wcat"))
					read_whole(paths[n], 1);
				else if (!strcmp(what, "stat") && lstat(paths[n], &st))
					fail(paths[n]);
				else if (!strcmp(what, "miss") && (!lstat(paths[n], &st) || errno != ENOENT))
					fail(paths[n]);
			}
	}
	report(start, started, done);
	return 0;
}
