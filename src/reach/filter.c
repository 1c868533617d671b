/* SPDX-License-Identifier: MIT */
/*
 * filter.c - the inner part of the wall: a filter of system calls.
 *
 * A worker starts no programs and makes no processes, but it has threads, and
 * its jobs may have more.  It has no sockets: some kinds of them, such as
 * those to the host of a virtual machine, know nothing of namespaces, and one
 * in a directory that may be read would lead out.  What is left of the
 * kernel's back doors, which a worker does not need, is refused with them:
 * each of them had faults.
 *
 * No file gets a set-user-ID bit: in a directory that may be written it would
 * be there for the users of the machine.  Root changes no modes at all, since
 * the device files inside are those of the machine.
 *
 * What is refused fails with EPERM, as for a user who may not.  'clone3' and
 * 'openat2', whose arguments a filter cannot see, seem not to be there, so
 * that the C library takes 'clone' and 'openat'.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* CLONE_THREAD */
#endif
#include "reach/wall.h"

#include <errno.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/status.h"

/* The machine that the numbers of calls are those of. */
#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__i386__)
#define MACHINE AUDIT_ARCH_I386
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#define MACHINE AUDIT_ARCH_AARCH64
#elif defined(__arm__) && defined(__ARMEL__)
#define MACHINE AUDIT_ARCH_ARM
#elif defined(__riscv) && __riscv_xlen == 64
#define MACHINE AUDIT_ARCH_RISCV64
#elif defined(__s390x__)
#define MACHINE AUDIT_ARCH_S390X
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define MACHINE AUDIT_ARCH_PPC64LE
#endif

#ifdef MACHINE

/* Calls that are refused, whatever they ask for. */
static const unsigned refused[] = {
  /* programs and processes */
  SYS_execve, SYS_execveat,
#ifdef SYS_fork
  SYS_fork,
#endif
#ifdef SYS_vfork
  SYS_vfork,
#endif
  SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp,
#ifdef SYS_pidfd_getfd
  SYS_pidfd_getfd,
#endif
  /* the network */
#ifdef SYS_socket
  SYS_socket,
#endif
#ifdef SYS_io_uring_setup
  SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
#endif
  /* namespaces and mounts */
  SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot,
#ifdef SYS_fsopen
  SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig, SYS_fsmount,
  SYS_fspick,
#endif
#ifdef SYS_mount_setattr
  SYS_mount_setattr,
#endif
  SYS_open_by_handle_at, SYS_name_to_handle_at,
  /* the kernel itself */
  SYS_bpf, SYS_perf_event_open, SYS_userfaultfd,
  SYS_add_key, SYS_request_key, SYS_keyctl,
  SYS_init_module, SYS_finit_module, SYS_delete_module,
  SYS_kexec_load, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_syslog, SYS_acct,
  SYS_quotactl, SYS_fanotify_init, SYS_vhangup, SYS_personality,
  SYS_settimeofday, SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime,
  SYS_sethostname, SYS_setdomainname,
#ifdef SYS_kexec_file_load
  SYS_kexec_file_load,
#endif
#ifdef SYS_iopl
  SYS_iopl, SYS_ioperm,
#endif
};

/* Calls that take the mode of a file, and which argument that is; a file that
   is made, or one that is there. */
static const struct { unsigned number, argument; bool there; } modes[] = {
#ifdef SYS_open
  { SYS_open, 2, false }, { SYS_creat, 1, false }, { SYS_mknod, 1, false },
  { SYS_chmod, 1, true },
#endif
  { SYS_openat, 3, false }, { SYS_mknodat, 2, false },
  { SYS_fchmod, 1, true }, { SYS_fchmodat, 2, true },
  { 452, 2, true },         /* fchmodat2, by its number on all machines */
};

/* Calls that seem not to be there, by their numbers on all machines. */
static const unsigned absent[] = { 435 /* clone3 */, 437 /* openat2 */ };

enum {
  REFUSED = sizeof refused / sizeof refused[0],
  MODES = sizeof modes / sizeof modes[0],
  ABSENT = sizeof absent / sizeof absent[0],
  MORE = 5 * MODES + 2 * ABSENT + 24  /* instructions beside 'refused' */
};

/* Where the lower half of an argument stands. */
#define HALF (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0)
#define ARGUMENT(n) \
  ((unsigned) (offsetof(struct seccomp_data, args) + 8 * (n) + HALF))

#ifdef __s390x__
#define CLONE_FLAGS ARGUMENT(1)
#else
#define CLONE_FLAGS ARGUMENT(0)
#endif

#define NAMESPACES (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS \
                    | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID \
                    | CLONE_NEWNET)

typedef struct code {
  struct sock_filter list[REFUSED + MORE];
  unsigned short n;
} code;

static void
add (code *c, struct sock_filter instruction)
{
  c->list[c->n++] = instruction;
}

static void
load (code *c, unsigned at)
{
  add(c, (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at));
}

static void
answer (code *c, unsigned what)
{
  add(c, (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, what));
}

/* Go on with the next instruction if the word that was loaded is 'n', or has a
   bit of it, and over 'skip' ones if not. */
static void
when (code *c, unsigned short how, unsigned n, unsigned char skip)
{
  add(c, (struct sock_filter) BPF_JUMP(BPF_JMP | how | BPF_K, n, 0, skip));
}

#define REFUSE (SECCOMP_RET_ERRNO | EPERM)

static void
make (code *c)
{
  c->n = 0;
  load(c, offsetof(struct seccomp_data, arch));
  add(c, (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1,
                                       0));
  answer(c, REFUSE);
  load(c, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
  when(c, BPF_JGE, 0x40000000u, 1);  /* the numbers of x32 */
  answer(c, REFUSE);
#endif
  for (unsigned i = 0; i < REFUSED; i++)  /* to the REFUSE at the end */
    add(c, (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
                                         refused[i],
                                         (unsigned char) (REFUSED - i), 0));
  add(c, (struct sock_filter) BPF_STMT(BPF_JMP | BPF_JA, 1));
  answer(c, REFUSE);
  for (unsigned i = 0; i < ABSENT; i++) {
    when(c, BPF_JEQ, absent[i], 1);
    answer(c, SECCOMP_RET_ERRNO | ENOSYS);
  }
  for (unsigned i = 0; i < MODES; i++) {
    const bool never = modes[i].there && geteuid() == 0;
    when(c, BPF_JEQ, modes[i].number, 4);
    load(c, ARGUMENT(modes[i].argument));
    when(c, BPF_JSET, never ? UINT_MAX : S_ISUID | S_ISGID, 1);
    answer(c, REFUSE);
    answer(c, never ? REFUSE : SECCOMP_RET_ALLOW);
  }
#ifdef SYS_socketcall
  when(c, BPF_JEQ, SYS_socketcall, 4);
  load(c, ARGUMENT(0));
  when(c, BPF_JEQ, 1, 1);  /* SYS_SOCKET */
  answer(c, REFUSE);
  answer(c, SECCOMP_RET_ALLOW);
#endif
  when(c, BPF_JEQ, SYS_clone, 4);
  load(c, CLONE_FLAGS);
  when(c, BPF_JSET, CLONE_THREAD, 1);
  add(c, (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES,
                                       0, 1));
  answer(c, REFUSE);
  answer(c, SECCOMP_RET_ALLOW);
}

int
rs_wall_close (rs_error *err)
{
  code c;
  make(&c);
  const struct sock_fprog program = { .len = c.n, .filter = c.list };
  /* Nobody has taken the way around the filter that a set-user-ID program
     is. */
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
      || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                 SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
    return rs_fail(err, RS_EFAILED, "the wall of \"strict\" cannot be closed: "
                                    "seccomp: %s", strerror(errno));
  return RS_OK;
}

#else

int
rs_wall_close (rs_error *err)
{
  return rs_fail(err, RS_EFAILED, "the wall of \"strict\" is not known for "
                                  "this kind of machine: leave it out");
}

#endif
