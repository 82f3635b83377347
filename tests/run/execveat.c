/* Binds a mapping, waits for a line and calls execveat(2): execveat FILE PATH FLAGS [ARGUMENT...], FILE opened here */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
	unsigned long size = 4096, two = 4;
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int file = open(argv[1], O_RDONLY);

	if (argc < 4 || file < 0 || syscall(SYS_mbind, memory, size, MPOL_BIND, &two, 64UL, 0UL))
		return 1;
	setvbuf(stdin, NULL, _IONBF, 0);
	printf("bound\n");
	fflush(stdout);
	getchar();
	if (syscall(SYS_execveat, file, argv[2], argv + 3, environ, (int)strtol(argv[3], NULL, 0)) < 0)
		perror("execveat");
	printf("still there\n");
	fflush(stdout);
	getchar();
	return 0;
}
