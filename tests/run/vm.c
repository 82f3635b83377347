/*
 * A TD as a VMM makes it: a VM, a guest_memfd that backs its memory, a vCPU, and every page of it touched.
 *
 *     vm BYTES [POLICY [LATER]]
 *
 * POLICY and LATER are masks of nodes: the guest_memfd is bound to the first before, to the second after it was
 * given to the VM; 0 is no policy. Prints a line for each step: its name, then ok or the name of the errno. Exit
 * status 0 if the guest lives.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include "../kvm_newer.h"
#include <linux/mempolicy.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef KVM_CREATE_GUEST_MEMFD /* Linux 6.8 */
struct kvm_userspace_memory_region2 {
	__u32 slot;
	__u32 flags;
	__u64 guest_phys_addr;
	__u64 memory_size;
	__u64 userspace_addr;
	__u64 guest_memfd_offset;
	__u32 guest_memfd;
	__u32 pad1;
	__u64 pad2[14];
};
struct kvm_create_guest_memfd {
	__u64 size;
	__u64 flags;
	__u64 reserved[6];
};
#define KVM_MEM_GUEST_MEMFD (1UL << 2)
#define KVM_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, struct kvm_userspace_memory_region2)
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct kvm_create_guest_memfd)
#endif
#ifndef KVM_X86_TDX_VM /* Linux 6.16 */
#define KVM_X86_TDX_VM 5
#endif
#define MEMFD_MMAP 1 /* GUEST_MEMFD_FLAG_MMAP, Linux 6.18 */

static int step(const char *name, long result)
{
	printf("%s %s\n", name, result < 0 ? strerrorname_np(errno) : "ok");
	fflush(stdout);
	return result < 0;
}

static void bind(const char *name, int memfd, size_t bytes, unsigned long nodes)
{
	void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);

	step(name, mapped == MAP_FAILED ? -1 : syscall(SYS_mbind, mapped, bytes, MPOL_BIND, &nodes, 64, 0));
	munmap(mapped, bytes); /* the policy is the file's */
}

static int is_cloexec(int fd)
{
	return fcntl(fd, F_GETFD) == FD_CLOEXEC ? 0 : -1;
}

static void refused(int kvm, int vm, int vcpu, int memfd, size_t bytes)
{
	struct kvm_create_guest_memfd odd = { .size = 4097 }, unknown = { .size = 4096, .flags = 1 << 9 };
	struct kvm_create_guest_memfd reserved = { .size = 4096, .reserved = { 1 } };
	struct kvm_userspace_memory_region2 more = { .slot = 1, .flags = KVM_MEM_GUEST_MEMFD };

	more.guest_phys_addr = 1ULL << 40;
	more.memory_size = bytes;
	more.guest_memfd = memfd;
	step("type 77", ioctl(kvm, KVM_CREATE_VM, 77));
	step("VM of a VM", ioctl(vm, KVM_CREATE_VM, KVM_X86_TDX_VM));
	step("vCPU of a vCPU", ioctl(vcpu, KVM_CREATE_VCPU, 1));
	step("vCPU again", ioctl(vm, KVM_CREATE_VCPU, 0));
	step("vCPU 1024", ioctl(vm, KVM_CREATE_VCPU, 1024));
	step("memfd of the device", ioctl(kvm, KVM_CREATE_GUEST_MEMFD, &unknown));
	step("memfd size", ioctl(vm, KVM_CREATE_GUEST_MEMFD, &odd));
	step("memfd flags", ioctl(vm, KVM_CREATE_GUEST_MEMFD, &unknown));
	step("memfd reserved", ioctl(vm, KVM_CREATE_GUEST_MEMFD, &reserved));
	step("memfd pointer", ioctl(vm, KVM_CREATE_GUEST_MEMFD, NULL));
	step("slot of a vCPU", ioctl(vcpu, KVM_SET_USER_MEMORY_REGION2, &more));
	step("slot over the same memfd", ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &more));
	more.guest_memfd_offset = 4096;
	step("slot beyond the memfd", ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &more));
	more.guest_memfd = vm;
	step("slot over a VM", ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &more));
	more.guest_memfd = 999;
	step("slot over nothing", ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &more));
	step("not KVM", ioctl(0, KVM_CREATE_VM, 0));
	step("not open", ioctl(999, KVM_CREATE_VM, 0));
}

static void full(int kvm)
{
	struct rlimit limit, none;

	getrlimit(RLIMIT_NOFILE, &limit);
	none = limit;
	none.rlim_cur = 3;
	setrlimit(RLIMIT_NOFILE, &none);
	step("no descriptor left", ioctl(kvm, KVM_CREATE_VM, KVM_X86_TDX_VM));
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void *in_thread(void *vm)
{
	struct kvm_pre_fault_memory fault = { .size = 4096 };
	int vcpu = ioctl(*(int *)vm, KVM_CREATE_VCPU, 7);

	step("in a thread", vcpu);
	step("fault in a thread", ioctl(vcpu, KVM_PRE_FAULT_MEMORY, &fault));
	return NULL;
}

static void elsewhere(int vm)
{
	pthread_t thread;

	pthread_create(&thread, NULL, in_thread, &vm);
	pthread_join(thread, NULL);
	if (!fork()) {
		step("in a child", ioctl(vm, KVM_CREATE_VCPU, 8));
		_exit(0);
	}
	wait(NULL);
}

int main(int argc, char **argv)
{
	struct kvm_userspace_memory_region2 region = { .flags = KVM_MEM_GUEST_MEMFD };
	struct kvm_create_guest_memfd wanted = { .flags = MEMFD_MMAP };
	struct kvm_pre_fault_memory fault = { 0 };
	unsigned long policy = argc > 2 ? strtoul(argv[2], NULL, 0) : 0;
	unsigned long later = argc > 3 ? strtoul(argv[3], NULL, 0) : 0;
	int kvm, vm, memfd, vcpu;

	if (argc < 2)
		return 2;
	fault.size = region.memory_size = wanted.size = strtoull(argv[1], NULL, 0);
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (step("open", kvm))
		return 1;
	vm = ioctl(kvm, KVM_CREATE_VM, KVM_X86_TDX_VM);
	if (step("vm", vm))
		return 1;
	memfd = ioctl(vm, KVM_CREATE_GUEST_MEMFD, &wanted);
	if (step("memfd", memfd))
		return 1;
	if (policy)
		bind("mbind", memfd, wanted.size, policy);
	region.guest_memfd = memfd;
	if (step("set", ioctl(vm, KVM_SET_USER_MEMORY_REGION2, &region)))
		return 1;
	if (later)
		bind("later", memfd, wanted.size, later);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (step("vcpu", vcpu))
		return 1;
	if (getenv("REFUSED")) {
		step("close-on-exec", is_cloexec(vm) | is_cloexec(vcpu) | is_cloexec(memfd));
		refused(kvm, vm, vcpu, memfd, wanted.size);
		full(kvm);
		elsewhere(vm);
	}
	close(vm); /* a vCPU keeps its VM */
	while (fault.size)
		if (ioctl(vcpu, KVM_PRE_FAULT_MEMORY, &fault) < 0) {
			step("fault", -1);
			step("again", ioctl(vcpu, KVM_PRE_FAULT_MEMORY, &fault));
			return 1;
		}
	return step("fault", 0);
}
