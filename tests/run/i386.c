/* Sets its policy by the system call of x86-64, and asks for it by that and by that of i386: prints both modes. */
#include <linux/mempolicy.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define I386_GET_MEMPOLICY 275

static int mode = -1;

int main(void)
{
	unsigned long one = 2;
	long result;

	syscall(SYS_set_mempolicy, MPOL_BIND, &one, 64UL);
	syscall(SYS_get_mempolicy, &mode, NULL, 0UL, NULL, 0UL);
	printf("%d\n", mode);
	fflush(stdout);
	mode = -1;
	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(I386_GET_MEMPOLICY), "b"(&mode), "c"(0), "d"(0), "S"(0), "D"(0)
			 : "memory");
	printf("%d\n", result ? -1 : mode);
	return 0;
}
