/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Architectural state of one virtual x86-64 processor. */
#ifndef CPU_X86_STATE_H
#define CPU_X86_STATE_H

#include "base/types.h"
#include "mem/mem.h"

/*
 * Code in cpu/x86 runs in two contexts.
 *
 *   leaf   Called from translated code with the guest's vector registers live in the host's.
 *          No libc, no floating point, no vector register, no platform call. All of cpu/x86 is
 *          compiled with -mgeneral-regs-only, and a test checks the undefined symbols of its objects.
 *   full   Called from engine_run() after the vector state was saved to cpu->xsave and the host's
 *          was put back; cpu->full is true. Only here may cpu->platform be called and cpu->xsave be read or
 *          written.
 *
 * A function that finds in leaf context that it needs the full one returns X86_FULL *before any
 * side effect*; the engine saves the vectors and calls the same instruction again.
 */
enum x86_status {
	X86_OK = 0,
	X86_FAULT, /* cpu->exc is filled; nothing of the instruction took effect */
	X86_EXIT, /* cpu->exit is filled; run the same instruction again after user space has answered */
	X86_FULL, /* repeat in full context */
};

enum x86_reg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum x86_sreg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEG_COUNT };

/* Segment attributes, as bits 8-15 and 20-23 of a descriptor's high word, shifted down by 8. */
#define SA_TYPE	     0x000f
#define SA_S	     0x0010 /* code or data */
#define SA_DPL_SHIFT 5
#define SA_DPL	     0x0060
#define SA_P	     0x0080
#define SA_AVL	     0x1000
#define SA_L	     0x2000
#define SA_DB	     0x4000
#define SA_G	     0x8000
#define SA_UNUSABLE  0x0100 /* not architectural: null selector loaded */

struct x86_seg {
	u64 base;
	u32 limit; /* in bytes, G applied */
	u16 sel;
	u16 attr;
};

struct x86_dtable {
	u64 base;
	u16 limit;
};

/* Arithmetic flags are kept as LAHF and SETO leave them: AH in bits 8-15, OF in bit 0. */
#define AF_OF 0x0001
#define AF_CF 0x0100
#define AF_PF 0x0400
#define AF_AF 0x1000
#define AF_ZF 0x4000
#define AF_SF 0x8000

/* RFLAGS bits. */
#define FL_CF	 BIT(0)
#define FL_PF	 BIT(2)
#define FL_AF	 BIT(4)
#define FL_ZF	 BIT(6)
#define FL_SF	 BIT(7)
#define FL_TF	 BIT(8)
#define FL_IF	 BIT(9)
#define FL_DF	 BIT(10)
#define FL_OF	 BIT(11)
#define FL_IOPL	 (3u << 12)
#define FL_NT	 BIT(14)
#define FL_RF	 BIT(16)
#define FL_VM	 BIT(17)
#define FL_AC	 BIT(18)
#define FL_VIF	 BIT(19)
#define FL_VIP	 BIT(20)
#define FL_ID	 BIT(21)
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

/* The flags that are never in the host's RFLAGS: one byte each, so that a plain MOV changes them. */
struct x86_vflags {
	u8 df, intr /* IF */, tf, ac, nt, rf, iopl, vm, id, vif, vip;
};

#define CR0_PE	       BIT_ULL(0)
#define CR0_MP	       BIT_ULL(1)
#define CR0_EM	       BIT_ULL(2)
#define CR0_TS	       BIT_ULL(3)
#define CR0_ET	       BIT_ULL(4)
#define CR0_NE	       BIT_ULL(5)
#define CR0_WP	       BIT_ULL(16)
#define CR0_AM	       BIT_ULL(18)
#define CR0_NW	       BIT_ULL(29)
#define CR0_CD	       BIT_ULL(30)
#define CR0_PG	       BIT_ULL(31)
#define CR4_VME	       BIT_ULL(0)
#define CR4_PVI	       BIT_ULL(1)
#define CR4_TSD	       BIT_ULL(2)
#define CR4_DE	       BIT_ULL(3)
#define CR4_PSE	       BIT_ULL(4)
#define CR4_PAE	       BIT_ULL(5)
#define CR4_MCE	       BIT_ULL(6)
#define CR4_PGE	       BIT_ULL(7)
#define CR4_PCE	       BIT_ULL(8)
#define CR4_OSFXSR     BIT_ULL(9)
#define CR4_OSXMMEXCPT BIT_ULL(10)
#define CR4_UMIP       BIT_ULL(11)
#define CR4_LA57       BIT_ULL(12)
#define CR4_VMXE       BIT_ULL(13)
#define CR4_SMXE       BIT_ULL(14)
#define CR4_FSGSBASE   BIT_ULL(16)
#define CR4_PCIDE      BIT_ULL(17)
#define CR4_OSXSAVE    BIT_ULL(18)
#define CR4_SMEP       BIT_ULL(20)
#define CR4_SMAP       BIT_ULL(21)
#define CR4_PKE	       BIT_ULL(22)
#define EFER_SCE       BIT_ULL(0)
#define EFER_LME       BIT_ULL(8)
#define EFER_LMA       BIT_ULL(10)
#define EFER_NX	       BIT_ULL(11)
#define EFER_SVME      BIT_ULL(12)
#define EFER_FFXSR     BIT_ULL(14)
#define EFER_AUTOIBRS  BIT_ULL(21)

enum x86_vector {
	VEC_DE,
	VEC_DB,
	VEC_NMI,
	VEC_BP,
	VEC_OF,
	VEC_BR,
	VEC_UD,
	VEC_NM,
	VEC_DF,
	VEC_CSO,
	VEC_TS,
	VEC_NP,
	VEC_SS,
	VEC_GP,
	VEC_PF,
	VEC_MF = 16,
	VEC_AC,
	VEC_MC,
	VEC_XM,
	VEC_CP = 21,
};

/* Filled by x86_raise*(), consumed by x86_deliver(). */
struct x86_exception {
	u8 vector;
	bool has_error;
	bool has_payload; /* payload = CR2 for #PF, DR6 bits for #DB */
	u32 error;
	u64 payload;
};

/* #PF error code bits. */
#define PF_P	BIT(0)
#define PF_W	BIT(1)
#define PF_U	BIT(2)
#define PF_RSVD BIT(3)
#define PF_I	BIT(4)

enum x86_exit_reason {
	X86_EXIT_NONE,
	X86_EXIT_IO, /* port I/O, one element or a string batch */
	X86_EXIT_MMIO,
	X86_EXIT_HLT,
	X86_EXIT_SHUTDOWN, /* triple fault */
	X86_EXIT_HYPERCALL,
	X86_EXIT_RDMSR,
	X86_EXIT_WRMSR,
	X86_EXIT_DEBUG,
	X86_EXIT_INTERNAL, /* emulation failure: suberror in .error */
	X86_EXIT_MEMORY, /* the process has no such access to a slot's memory, at .gpa or X86_NO_GPA */
	X86_EXIT_FETCH, /* instruction fetch from where there is no memory: .gpa */
};

#define X86_NO_GPA (~0ull)

/* What user space is asked. For MMIO and IO the answer comes back in data[] (see struct x86_replay). */
struct x86_exit {
	u8 reason; /* enum x86_exit_reason */
	bool is_write;
	u8 size;   /* bytes of one element */
	u32 count; /* IO: elements */
	u16 port;
	u32 error;
	gpa_t gpa;
	u8 data[8];
};

/*
 * REP INS asks user space for many elements at a time: what lies behind the first one waits here.
 * Only within one run of the instruction: nothing else runs before it is used up.
 */
#define X86_AHEAD_MAX 1024
struct x86_ahead {
	u16 at, end; /* bytes of data */
	u8 data[X86_AHEAD_MAX];
};

/*
 * Accesses to devices in user space restart the instruction: an access that user space has
 * answered is remembered here and satisfied when the instruction runs again. Reads first, then
 * writes; a write is performed by the exit itself. Forgotten when the instruction completes.
 */
#define X86_REPLAY_MAX 16
struct x86_replay {
	u8 n;	      /* fragments done */
	u8 next;      /* next fragment to be matched in this run of the instruction */
	bool waiting; /* cpu->exit was handed out and its answer is due */
	struct {
		gpa_t addr; /* gpa, or port */
		u8 size;
		bool is_write, is_io;
		u8 data[8];
	} frag[X86_REPLAY_MAX];
};

/* What the caches of the engine must forget; set by cpu/x86, consumed by the engine before the next instruction. */
#define X86_FLUSH_PAGES 8
#define X86_FLUSH_PCIDS 4
struct x86_flush {
	bool all;		     /* global pages too, of every PCID */
	bool switched;		     /* CR3 was loaded: the current PCID is CR3's from now on */
	bool nonglobal;		     /* of the current PCID (the new one, after a switch) */
	u8 npages;		     /* > X86_FLUSH_PAGES: all */
	u8 npcids;		     /* > X86_FLUSH_PCIDS: all */
	u16 pcid[X86_FLUSH_PCIDS];   /* INVPCID: all that is cached for these */
	gva_t page[X86_FLUSH_PAGES]; /* INVLPG: of the current PCID, and global pages */
};

static inline bool x86_flush_wanted(const struct x86_flush *f)
{
	return f->all || f->switched || f->nonglobal || f->npages || f->npcids;
}

/* What a debugger in user space has asked for: bits of cpu->debug. */
#define X86_DEBUG_STEP	   BIT(0)
#define X86_DEBUG_HW	   BIT(1) /* debug_dr[] instead of the guest's registers */
#define X86_DEBUG_SW	   BIT(2) /* INT3 exits */
#define X86_DEBUG_BLOCKIRQ BIT(3)

struct x86_cpuid_entry { /* layout of struct kvm_cpuid_entry2 */
	u32 function, index, flags, eax, ebx, ecx, edx, padding[3];
};
#define X86_CPUID_MAX 256

struct x86_cpu;

/* Why an MSR access of the guest did not succeed. */
enum x86_msr_why { X86_MSR_FILTERED, X86_MSR_UNKNOWN, X86_MSR_INVALID };

/* Platform calls, full context only; handed down at creation by the KVM floor. */
struct x86_platform {
	/* Device access: 0 done, 1 nobody in this process (user space is to be asked). */
	int (*mmio)(void *owner, gpa_t gpa, void *data, unsigned size, bool is_write);
	int (*io)(void *owner, u16 port, void *data, unsigned size, bool is_write);
	/* MSRs that belong to a device or to the hypervisor: 0 done, 1 not mine, -1 #GP. */
	int (*rdmsr)(void *owner, u32 index, u64 *value);
	int (*wrmsr)(void *owner, u32 index, u64 value);
	/*
	 * Only while cpu->msr_exits is set. Whether the guest may access the register; and after a failure, whether
	 * user space decides: then an exit is due, which completes the instruction.
	 */
	bool (*msr_allowed)(void *owner, u32 index, bool is_write);
	bool (*msr_ask)(void *owner, u32 index, u64 value, bool is_write, enum x86_msr_why why);
	/* CR8: task priority. */
	u64 (*get_tpr)(void *owner);
	void (*set_tpr)(void *owner, u64 tpr);
	/* VMCALL/VMMCALL at any privilege. X86_OK: *result for RAX; X86_EXIT; X86_FAULT: the exception is raised. */
	enum x86_status (*hypercall)(void *owner, u64 nr, const u64 arg[4], u64 *result);
	/* One line in the log, rate limited. */
	void (*log)(void *owner, const char *what, u64 a, u64 b);
};

/* Execution mode as translated code depends on it: key of a block. See mode.h. */
typedef u32 x86_mode_t;

#define X86_XSAVE_MAX 4096

struct x86_cpu {
	/* --- touched by translated code; offsets below 128 preferred --- */
	u64 gpr[16];  /* valid only outside translated code */
	u64 rip;      /* of the instruction being executed; offset inside CS */
	u64 next_rip; /* where the instruction continues; control transfers write it */
	u16 aflags;   /* AF_* */
	struct x86_vflags f;
	/* Polled together, as one word: leave translated code soon. Any thread may set either. */
	volatile u8 kick __attribute__((aligned(2))); /* for the KVM floor: engine_run() returns */
	volatile u8 request; /* for the engine: somebody wants something dropped */
	u8 shadow; /* 1: STI, 2: MOV SS: no interrupt before the next instruction is done */
	u8 cpl;
	bool full; /* context: see top of file */
	bool irq_waiting; /* an interrupt waits for IF, shadow or TPR: whoever opens the window sets kick */
	x86_mode_t mode;

	struct x86_seg seg[SEG_COUNT];
	struct x86_dtable gdt, idt;
	u64 cr0, cr2, cr3, cr4, cr8; /* cr8 is used only without an in-kernel LAPIC */
	u64 efer, xcr0;
	u64 dr[4], dr6, dr7;
	u64 debug_dr[4], debug_dr7;
	u8 debug;     /* X86_DEBUG_* */
	u8 watch;     /* data breakpoints that the instruction at hand has hit, as bits of DR6 */
	u64 pdptr[4]; /* PAE: loaded with CR3 */

	u64 star, lstar, cstar, sfmask, kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 pat, tsc_aux, tsc_offset, tsc_adjust, misc_enable, spec_ctrl, arch_capabilities;
	u64 mtrr_def, mtrr_fixed[11], mtrr_var[16];
	u64 mcg_cap, mcg_status, mcg_ctl, mc_bank[4 * 32];
	u64 mc_ctl2[32];
	u64 smbase; /* 32 bits */
	u64 smi_count, platform_info, debugctl, ucode_rev, syscfg, hwcr, xss, power_ctl;
	u64 misc_features; /* MISC_FEATURES_ENABLES: bit 0 CPUID faulting */
	u64 xcr0_host; /* components that the engine saves (struct x86_host .xcr0); 0: what the host enables */
	bool apic_off; /* IA32_APIC_BASE enable bit is clear: CPUID hides the APIC */
	u32 tsc_khz;
	u64 tsc_ratio; /* of the guest's rate to the host's, 48 bits of fraction; 0: the same */

	/* Choices of the hypervisor. */
	bool msr_exits;	       /* RDMSR and WRMSR ask the platform */
	bool no_platform_info; /* the guest may not read MSR_PLATFORM_INFO */
	bool mwait_no_fault;   /* MONITOR and MWAIT do nothing also where CPUID hides them */
	bool mwait_by_msr;     /* CPUID shows MWAIT as MISC_ENABLE says */
	u8 hypercall_modrm;    /* the native one of VMCALL and VMMCALL; 0: both are */
	bool rsvd_exits; /* x87 and vector instructions on addresses past MAXPHYADDR end KVM_RUN, see engine/slow.c */
	bool hypercall_fix; /* the other one is rewritten by the first that runs it; else #UD */

	struct x86_exception exc;
	struct x86_exit exit;
	struct x86_replay replay;
	struct x86_ahead ahead;
	struct x86_flush flush;

	/* Event being delivered when a fault or exit cut it off (KVM_GET_VCPU_EVENTS "injected"). */
	struct {
		bool exception, interrupt, nmi, soft;
		bool nmi_blocked; /* until IRET */
		u8 vector, nmi_pending;
		bool smi_pending, in_smm;
		bool smm_inside_nmi; /* NMIs were blocked before the SMI already */
	} event;

	u8 phys_bits, virt_bits; /* of the guest's CPUID */
	bool intel;		 /* vendor rules: Intel's, else AMD's */
	u32 ncpuid;
	struct x86_cpuid_entry cpuid[X86_CPUID_MAX];

	struct mem *mem;
	unsigned space; /* address space: 1 in SMM */
	struct slot *slot_hint;
	struct mem_writer *writer; /* who its writes are recorded for; may be NULL */
	const struct x86_platform *platform;
	void *owner;
	/* Called before a store to a page that translated code was made from; may be NULL. Leaf. */
	void (*code_written)(void *engine, struct slot *slot, gpa_t gpa, unsigned len);
	void *engine; /* argument of code_written */

	u64 unknown_insns, unknown_msrs; /* counters of faults given for want of a row */

	u8 xsave[X86_XSAVE_MAX]
		__attribute__((aligned(64))); /* standard format; valid only when full */
};

#endif
