/* What both programs use of <linux/kvm.h> that older headers lack. */
#include <linux/kvm.h>

#ifndef KVM_PRE_FAULT_MEMORY /* Linux 6.11 */
struct kvm_pre_fault_memory {
	__u64 gpa;
	__u64 size;
	__u64 flags;
	__u64 padding[5];
};
#define KVM_PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, struct kvm_pre_fault_memory)
#endif
