/* Calls the NUMA and affinity system calls and prints what each returns: "name result errno" a line. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define SET(mode, mask, max) syscall(SYS_set_mempolicy, (mode), (mask), (max))
#define GET(mode, mask, max, at, flags) syscall(SYS_get_mempolicy, (mode), (mask), (max), (at), (flags))
#define BIND_RANGE(at, len, mode, mask, max, flags) syscall(SYS_mbind, (at), (len), (mode), (mask), (max), (flags))

static void say(const char *name, long result)
{
	int error = result < 0 ? errno : 0;

	printf("%s %ld %d\n", name, result, error);
	fflush(stdout);
}

static void policy(const char *name)
{
	unsigned long mask[16] = {0};
	int mode = -1;

	GET(&mode, mask, 1024, 0, 0);
	printf("%s mode %d mask %lx\n", name, mode, mask[0]);
	fflush(stdout);
}

static void *in_thread(void *arg)
{
	unsigned long two = 4;

	policy("thread inherits");
	SET(MPOL_PREFERRED, &two, 64);
	policy("thread sets");
	return arg;
}

int main(void)
{
	unsigned long none[16] = {0}, one = 2, two = 4, all = 7, absent = 0x80;
	unsigned long mask[16] = {0}, cpus[128] = {0};
	int mode = 0, status[3], nodes[3] = {2, 2, 1};
	pthread_t thread;

	policy("at first");
	say("bind 1", SET(MPOL_BIND, &one, 64));
	policy("bound");
	say("unknown mode", SET(42, &one, 64));
	say("empty bind", SET(MPOL_BIND, none, 64));
	say("null bind", SET(MPOL_BIND, NULL, 64));
	say("default with nodes", SET(MPOL_DEFAULT, &one, 64));
	say("local with nodes", SET(MPOL_LOCAL, &one, 64));
	say("absent node", SET(MPOL_BIND, &absent, 64));
	say("too long", SET(MPOL_BIND, &one, 40000));
	say("bad pointer", SET(MPOL_BIND, (void *)1, 64));
	policy("unchanged");
	pthread_create(&thread, NULL, in_thread, NULL);
	pthread_join(thread, NULL);
	policy("after the thread");
	if (fork() == 0) {
		policy("child inherits");
		SET(MPOL_DEFAULT, NULL, 0);
		policy("child sets");
		_exit(0);
	}
	wait(NULL);
	policy("after the child");
	say("allowed", GET(NULL, mask, 1024, 0, MPOL_F_MEMS_ALLOWED));
	printf("allowed mask %lx\n", mask[0]);
	say("short mask", GET(&mode, mask, 2, 0, 0));
	say("next of bind", GET(&mode, NULL, 0, 0, MPOL_F_NODE));
	say("address without flag", GET(&mode, NULL, 0, main, 0));

	char *memory = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	say("mbind", BIND_RANGE(memory + PAGE, 2 * PAGE, MPOL_BIND, &two, 64, 0));
	say("mbind unaligned", BIND_RANGE(memory + 1, PAGE, MPOL_BIND, &two, 64, 0));
	say("mbind flags", BIND_RANGE(memory, PAGE, MPOL_BIND, &two, 64, 64));
	say("mbind empty", BIND_RANGE(memory, 0, MPOL_BIND, &two, 64, 0));
	say("mbind unmapped", BIND_RANGE(NULL, PAGE, MPOL_BIND, &two, 64, 0));
	memset(memory, 1, 4 * PAGE);
	say("policy at", GET(&mode, mask, 1024, memory + PAGE, MPOL_F_ADDR));
	printf("policy at mode %d mask %lx\n", mode, mask[0]);
	say("node at 0", GET(&mode, NULL, 0, memory, MPOL_F_ADDR | MPOL_F_NODE));
	printf("node at 0 is %d\n", mode);
	say("node at 1", GET(&mode, NULL, 0, memory + PAGE, MPOL_F_ADDR | MPOL_F_NODE));
	printf("node at 1 is %d\n", mode);
	say("strict", BIND_RANGE(memory, PAGE, MPOL_BIND, &two, 64, MPOL_MF_STRICT));
	say("strict in place", BIND_RANGE(memory, PAGE, MPOL_BIND, &one, 64, MPOL_MF_STRICT));
	say("back", BIND_RANGE(memory, PAGE, MPOL_DEFAULT, NULL, 0, 0));
	say("nothing at", GET(&mode, NULL, 0, 0, MPOL_F_ADDR));

	void *pages[3] = {memory, memory + PAGE, (void *)PAGE};
	say("where are pages", syscall(SYS_move_pages, 0, 3UL, pages, NULL, status, 0));
	printf("pages are %d %d %d\n", status[0], status[1], status[2]);
	say("move pages", syscall(SYS_move_pages, 0, 1UL, pages, nodes, status, MPOL_MF_MOVE));
	say("where now", syscall(SYS_move_pages, 0, 1UL, pages, NULL, status, 0));
	printf("page is %d\n", status[0]);
	nodes[0] = 7;
	say("move to no node", syscall(SYS_move_pages, 0, 1UL, pages, nodes, status, MPOL_MF_MOVE));
	say("move of nobody", syscall(SYS_move_pages, 0x3fffffff, 1UL, pages, NULL, status, 0));
	say("home", syscall(450, memory + PAGE, PAGE, 1UL, 0UL));
	say("home of none", syscall(450, memory, PAGE, 1UL, 0UL));
	say("home on no node", syscall(450, memory + PAGE, PAGE, 7UL, 0UL));
	say("migrate", syscall(SYS_migrate_pages, 0, 64UL, &all, &one));
	say("migrate to no node", syscall(SYS_migrate_pages, 0, 64UL, &all, &absent));

	say("affinity", syscall(SYS_sched_getaffinity, 0, sizeof(cpus), cpus));
	printf("cpus %lx\n", cpus[0]);
	say("affinity short", syscall(SYS_sched_getaffinity, 0, 1, cpus));
	cpus[0] = 0x303;
	say("bind cpus", syscall(SYS_sched_setaffinity, 0, 8, cpus));
	say("affinity again", syscall(SYS_sched_getaffinity, 0, sizeof(cpus), cpus));
	printf("cpus %lx\n", cpus[0]);
	cpus[0] = 0;
	say("bind no cpus", syscall(SYS_sched_setaffinity, 0, 8, cpus));
	return 0;
}
