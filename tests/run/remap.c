/* Unmaps, resizes and moves mappings that have policies, and prints whose policy is where: "what mode mode ..." */
#define _GNU_SOURCE
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096UL
#define ANYWHERE (MAP_PRIVATE | MAP_ANONYMOUS)

static char *map(char *where, unsigned long pages, int flags)
{
	char *got = mmap(where, pages * PAGE, PROT_READ | PROT_WRITE, ANYWHERE | flags, -1, 0);

	if (got == MAP_FAILED)
		exit(1);
	return got;
}

static void bind(char *at, unsigned long pages, unsigned long nodes)
{
	if (syscall(SYS_mbind, at, pages * PAGE, MPOL_BIND, &nodes, 64UL, 0UL))
		exit(2);
}

/* the nodes that each page is bound to, "-" where nothing is mapped */
static void show(const char *what, char *at, unsigned long pages)
{
	printf("%s", what);
	for (unsigned long page = 0; page < pages; page++) {
		unsigned long nodes[16] = {0};
		int mode = 0;

		if (syscall(SYS_get_mempolicy, &mode, nodes, 1024UL, at + page * PAGE, 2UL))
			printf(" -");
		else
			printf(" %lx", nodes[0]);
	}
	printf("\n");
	fflush(stdout);
}

int main(void)
{
	char *room = map(NULL, 64, 0), *moved;

	munmap(room, 64 * PAGE);
	map(room, 8, MAP_FIXED);
	bind(room, 4, 2);
	bind(room + 4 * PAGE, 4, 4);
	show("bound", room, 8);
	munmap(room + PAGE, PAGE);
	show("unmapped", room, 8);
	map(room + PAGE, 1, MAP_FIXED_NOREPLACE);
	show("mapped again", room, 8);
	munmap(room + 1, PAGE);
	show("not unmapped", room, 8);
	if (mremap(room + 4 * PAGE, 4 * PAGE, 2 * PAGE, 0) == MAP_FAILED)
		exit(3);
	show("smaller", room, 8);
	if (mremap(room + 4 * PAGE, 2 * PAGE, 4 * PAGE, 0) == MAP_FAILED)
		exit(4);
	show("larger", room, 8);
	moved = mremap(room + 4 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + 16 * PAGE);
	show("moved from", room, 8);
	show("moved to", moved, 4);
	bind(room, 4, 2);
	if (mmap(room + 2 * PAGE, PAGE, PROT_READ, ANYWHERE | MAP_FIXED | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED)
		exit(5);
	show("not replaced", room, 4);
	map(room + PAGE, 2, MAP_FIXED);
	show("replaced", room, 4);
	getchar();
	munmap(room, 64 * PAGE);
	printf("all unmapped\n");
	fflush(stdout);
	getchar();
	return 0;
}
