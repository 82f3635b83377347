/* No libc at all, as a Go program makes its calls: prints three files and the policy and CPUs that it finds. */
#include <fcntl.h>
#include <sys/syscall.h>

static long call(long number, long a, long b, long c, long d, long e)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
}

static void print(const char *text, long length)
{
	call(SYS_write, 1, (long)text, length, 0, 0);
}

static void copy(const char *path)
{
	static char buffer[65536];
	long file = call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY, 0, 0), size;

	while ((size = call(SYS_read, file, (long)buffer, sizeof(buffer), 0, 0)) > 0)
		print(buffer, size);
	call(SYS_close, file, 0, 0, 0, 0);
}

static void number(long value)
{
	char digits[20];
	int at = sizeof(digits);

	digits[--at] = '\n';
	do
		digits[--at] = '0' + value % 10;
	while (value /= 10);
	print(digits + at, sizeof(digits) - at);
}

void _start(void)
{
	static unsigned long cpus[128], mask[16] = {2};
	long bytes = call(SYS_sched_getaffinity, 0, sizeof(cpus), (long)cpus, 0, 0), count = 0;

	for (long i = 0; i < bytes * 8; i++)
		count += cpus[i / 64] >> i % 64 & 1;
	number(count);
	number(-call(SYS_set_mempolicy, 2, (long)mask, 1024, 0, 0));
	copy("/sys/devices/system/node/online");
	copy("/proc/self/numa_maps");
	copy("/proc/self/status");
	call(SYS_exit_group, 0, 0, 0, 0, 0);
}
