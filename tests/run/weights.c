/* Touches pages under weighted interleave over nodes 0 and 2 and prints on which nodes they are, in three ways. */
#define _GNU_SOURCE
#include <linux/mempolicy.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MPOL_WEIGHTED_INTERLEAVE
#define MPOL_WEIGHTED_INTERLEAVE 6
#endif
#define PAGE 4096UL
#define PAGES 60

int main(void)
{
	unsigned long nodes = 5, start;
	char *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int moved[3] = {0}, answered[3] = {0}, status[PAGES];
	void *pages[PAGES];
	char line[4096];
	FILE *maps;

	if (syscall(SYS_mbind, memory, PAGES * PAGE, MPOL_WEIGHTED_INTERLEAVE, &nodes, 64, 0))
		return 1;
	memset(memory, 1, PAGES * PAGE);
	for (int at = 0; at < PAGES; at++)
		pages[at] = memory + at * PAGE;
	if (syscall(SYS_move_pages, 0, PAGES, pages, NULL, status, 0))
		return 2;
	for (int at = 0; at < PAGES; at++) {
		int node = -1;

		if (syscall(SYS_get_mempolicy, &node, NULL, 0, pages[at], MPOL_F_NODE | MPOL_F_ADDR))
			return 3;
		if (node < 0 || node > 2 || status[at] < 0 || status[at] > 2)
			return 4;
		moved[status[at]]++;
		answered[node]++;
	}
	printf("first at %lu\n", (uintptr_t)memory / PAGE % 4);
	printf("move_pages %d %d %d\n", moved[0], moved[1], moved[2]);
	printf("get_mempolicy %d %d %d\n", answered[0], answered[1], answered[2]);
	printf("in turn");
	for (int at = 0; at < 8; at++)
		printf(" %d", status[at]);
	maps = fopen("/proc/self/numa_maps", "r");
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx", &start) == 1 && start == (uintptr_t)memory)
			printf("\n%s", strchr(line, ' ') + 1);
	return 0;
}
