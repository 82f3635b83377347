/*
 * The walk of the discussion, as a program does it: map memory, open KVM, give the memory to a TD, touch it.
 *
 *     walk ROOT BACKING BYTES [OFFSET]
 *
 * ROOT is where a tdxfs is mounted, or "" for the machine itself. BACKING is a file that is mapped MAP_SHARED
 * (one that begins with ROOT, or any other), or anon, shmem, shmem-touched or nothing. Prints a line for each
 * step: its name, then ok or the name of the errno. Exit status 0 if the guest lives.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include "../kvm_newer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int step(const char *name, int failed)
{
	printf("%s %s\n", name, failed ? strerrorname_np(errno) : "ok");
	fflush(stdout);
	return failed;
}

static void *map(const char *backing, size_t bytes, off_t offset)
{
	int fd = -1, flags = MAP_SHARED, touch = !strcmp(backing, "shmem-touched");
	void *memory;

	if (!strcmp(backing, "nothing"))
		return (void *)0x10000000000;
	if (!strcmp(backing, "anon"))
		flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	else if (touch || !strcmp(backing, "shmem"))
		flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
	else
		fd = open(backing, O_RDWR);
	if (!(flags & MAP_ANONYMOUS) && fd < 0)
		return MAP_FAILED;
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, offset);
	if (touch && memory != MAP_FAILED)
		memset(memory, 1, bytes);
	return memory;
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region region = { 0 };
	struct kvm_pre_fault_memory fault = { 0 };
	char kvm_path[4096];
	void *memory;
	int kvm;

	if (argc < 4)
		return 2;
	memory = map(argv[2], strtoull(argv[3], NULL, 0), argc > 4 ? strtoll(argv[4], NULL, 0) : 0);
	if (step("map", memory == MAP_FAILED))
		return 1;
	snprintf(kvm_path, sizeof(kvm_path), "%s/dev/kvm", argv[1]);
	kvm = open(kvm_path, O_RDWR | O_CLOEXEC);
	if (step("open", kvm < 0))
		return 1;
	if (step("version", ioctl(kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION))
		return 1;

	region.memory_size = strtoull(argv[3], NULL, 0);
	region.userspace_addr = (__u64)memory;
	if (step("set", ioctl(kvm, KVM_SET_USER_MEMORY_REGION, &region) < 0))
		return 1;

	fault.size = region.memory_size;
	while (fault.size)
		if (ioctl(kvm, KVM_PRE_FAULT_MEMORY, &fault) < 0) {
			step("fault", 1);
			step("again", ioctl(kvm, KVM_PRE_FAULT_MEMORY, &fault) < 0);
			return 1;
		}
	return step("fault", 0);
}
