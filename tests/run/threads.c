/*
 * Threads and children that have what their maker had: prints "who mode nodes cpus" a line. With an argument, prints
 * the line of itself under that name.
 */
#define _GNU_SOURCE
#include <linux/mempolicy.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static const char *myself;
static pthread_barrier_t changed, shown, seen;

static void show(const char *who)
{
	unsigned long nodes[16] = {0}, cpus[16] = {0};
	int mode = -1;

	syscall(SYS_get_mempolicy, &mode, nodes, 1024UL, NULL, 0UL);
	syscall(SYS_sched_getaffinity, 0, sizeof(cpus), cpus);
	printf("%s %d %lx %lx\n", who, mode, nodes[0], cpus[0]);
	fflush(stdout);
}

static void set(int mode, unsigned long nodes, unsigned long cpus)
{
	if (syscall(SYS_set_mempolicy, mode, &nodes, 64UL) || syscall(SYS_sched_setaffinity, 0, sizeof(cpus), &cpus))
		exit(1);
}

static void make(void *(*function)(void *), const char *who)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, function, (void *)who) || pthread_join(thread, NULL))
		exit(1);
}

static void *made(void *who)
{
	show(who);
	return NULL;
}

static void *waits(void *who)
{
	unsigned long one = 2;

	pthread_barrier_wait(&changed);
	show(who);
	syscall(SYS_sched_setaffinity, 0, sizeof(one), &one);
	printf("%ld\n", syscall(SYS_gettid));
	fflush(stdout);
	pthread_barrier_wait(&shown);
	pthread_barrier_wait(&seen);
	return NULL;
}

static void *makes(void *who)
{
	char *arguments[] = {(char *)myself, "spawned by a thread", NULL};
	pid_t child;

	set(MPOL_PREFERRED, 4, 4);
	show(who);
	make(made, "thread of a thread");
	if (fork() == 0) {
		show("child of a thread");
		_exit(0);
	}
	wait(NULL);
	if (posix_spawn(&child, myself, NULL, NULL, arguments, environ))
		exit(1);
	wait(NULL);
	if (vfork() == 0) {
		execl(myself, myself, "run by a child of a thread", NULL);
		_exit(1);
	}
	wait(NULL);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	myself = argv[0];
	if (argc > 1) {
		show(argv[1]);
		return 0;
	}
	set(MPOL_BIND, 2, 3);
	make(makes, "thread");
	show("first thread");
	pthread_barrier_init(&changed, NULL, 2);
	pthread_barrier_init(&shown, NULL, 2);
	pthread_barrier_init(&seen, NULL, 2);
	pthread_create(&thread, NULL, waits, "thread of before");
	set(MPOL_INTERLEAVE, 7, 15);
	pthread_barrier_wait(&changed);
	pthread_barrier_wait(&shown);
	make(made, "thread of after");
	getchar();
	pthread_barrier_wait(&seen);
	pthread_join(thread, NULL);
	printf("gone\n");
	fflush(stdout);
	getchar();
	return 0;
}
