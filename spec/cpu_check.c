/* SPDX-License-Identifier: MIT */
/*
 * cpu_check.c - how many CPUs a process may use, by the quotas of its control
 * groups, in trees of files that are made up here.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE  /* mkdtemp */
#endif
#include "support/check.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cpu.h"

#define V2 "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 " \
           "cgroup2 rw,nsdelegate\n"
#define V1 "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:5 - cgroup " \
           "cgroup rw,cpu,cpuacct\n"
#define SET "32 23 0:28 / /sys/fs/cgroup/cpuset rw shared:6 - cgroup cgroup " \
            "rw,cpuset\n"
#define DISK "22 1 8:1 / / rw - ext4 /dev/root rw\n"

enum { FILES = 6 };

typedef struct {
  const char *what;
  unsigned cpus;
  const char *group;     /* /proc/self/cgroup */
  const char *mounts;    /* /proc/self/mountinfo */
  struct { const char *path, *text; } files[FILES];
} tree;

static const tree trees[] = {
  { "nothing", RS_CPU_ANY, NULL, NULL, { { NULL, NULL } } },
  { "no groups", RS_CPU_ANY, "", DISK, { { NULL, NULL } } },
  { "garbage", RS_CPU_ANY, "0\n::\nx:y\n0:\n", "- - -\n - \n1 2 3\n",
    { { NULL, NULL } } },

  { "version 2", 2, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "200000 100000\n" } } },
  { "rounded up", 3, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "200001 100000\n" } } },
  { "less than one", 1, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "10000 100000\n" } } },
  { "another period", 4, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "35000 10000\n" } } },
  { "max", RS_CPU_ANY, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "max 100000\n" } } },
  { "no number", RS_CPU_ANY, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "some\n" } } },
  { "an empty file", RS_CPU_ANY, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "" } } },
  { "no period", RS_CPU_ANY, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "200000\n" } } },
  { "a period of nothing", RS_CPU_ANY, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "200000 0\n" } } },
  { "below zero", RS_CPU_ANY, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "-1 100000\n" } } },
  { "no file", RS_CPU_ANY, "0::/a\n", DISK V2, { { NULL, NULL } } },
  { "a level above", 2, "0::/a/b/c\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "150000 100000\n" },
      { "/sys/fs/cgroup/a/b/cpu.max", "max 100000\n" },
      { "/sys/fs/cgroup/a/b/c/cpu.max", "800000 100000\n" } } },
  { "the least one is the innermost", 1, "0::/a/b\n", DISK V2,
    { { "/sys/fs/cgroup/a/cpu.max", "300000 100000\n" },
      { "/sys/fs/cgroup/a/b/cpu.max", "100000 100000\n" } } },
  { "another group's", RS_CPU_ANY, "0::/a\n", DISK V2,
    { { "/sys/fs/cgroup/ab/cpu.max", "100000 100000\n" } } },
  { "a namespace", 2, "0::/\n", DISK V2,
    { { "/sys/fs/cgroup/cpu.max", "200000 100000\n" } } },
  { "a group outside of the namespace", 2, "0::/../other\n", DISK V2,
    { { "/sys/fs/cgroup/cpu.max", "200000 100000\n" } } },
  { "a bind mount of the group", 3, "0::/docker/1234\n",
    DISK "30 23 0:26 /docker/1234 /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
    { { "/sys/fs/cgroup/cpu.max", "300000 100000\n" } } },
  { "a name that the mounted one begins with", 3, "0::/dock/1\n",
    DISK "30 23 0:26 /doc /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
    { { "/sys/fs/cgroup/cpu.max", "300000 100000\n" },
      { "/sys/fs/cgroupk/1/cpu.max", "100000 100000\n" } } },
  { "a mount point with a space", 2, "0::/a\n",
    DISK "30 23 0:26 / /my\\040groups rw - cgroup2 cgroup2 rw\n",
    { { "/my groups/a/cpu.max", "200000 100000\n" } } },

  { "version 1", 2, "4:memory:/a\n3:cpu,cpuacct:/a\n", DISK SET V1,
    { { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000\n" },
      { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n" } } },
  { "version 1 without a quota", RS_CPU_ANY, "3:cpu,cpuacct:/a\n", DISK V1,
    { { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n" },
      { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n" } } },
  { "version 1 without a period", RS_CPU_ANY, "3:cpu,cpuacct:/a\n", DISK V1,
    { { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "100000\n" } } },
  { "version 1, a level above", 1, "3:cpuacct,cpu:/a/b\n", DISK V1,
    { { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n" },
      { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n" },
      { "/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n" } } },
  { "version 1, not the controller", RS_CPU_ANY, "3:cpuset,cpuacct:/a\n",
    DISK SET V1,
    { { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n" },
      { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n" } } },
  { "a container of version 1", 2, "3:cpu,cpuacct:/docker/12\n",
    DISK "31 23 0:27 /docker/12 /sys/fs/cgroup/cpu,cpuacct ro - cgroup "
    "cgroup rw,cpu,cpuacct\n",
    { { "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n" },
      { "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n" } } },
  { "both", 2, "3:cpu,cpuacct:/a\n0::/b\n", DISK V1
    "30 23 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    { { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "200000\n" },
      { "/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n" },
      { "/sys/fs/cgroup/unified/b/cpu.max", "max 100000\n" } } },
};

static char root[] = "/tmp/cpu_check.XXXXXX";

/* Write a file below the root, and make its directories. */
static void
write_file (const char *path, const char *text)
{
  char full[512];
  snprintf(full, sizeof full, "%s%s", root, path);
  for (char *p = full + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
    *p = '\0';
    REQUIRE(mkdir(full, 0700) == 0 || errno == EEXIST);
    *p = '/';
  }
  FILE *const f = fopen(full, "w");
  REQUIRE(f != NULL);
  fputs(text, f);
  fclose(f);
}

static void
remove_all (void)
{
  char command[64];
  snprintf(command, sizeof command, "rm -rf %s", root);
  REQUIRE(system(command) == 0);
}

static void
check_tree (const tree *t)
{
  REQUIRE(mkdir(root, 0700) == 0);
  if (t->group != NULL)
    write_file("/proc/self/cgroup", t->group);
  if (t->mounts != NULL)
    write_file("/proc/self/mountinfo", t->mounts);
  for (int i = 0; i < FILES && t->files[i].path != NULL; i++)
    write_file(t->files[i].path, t->files[i].text);
  const unsigned cpus = rs_cpu_quota(root);
  if (cpus != t->cpus)
    fprintf(stderr, "%s: %u, not %u\n", t->what, cpus, t->cpus);
  CHECK(cpus == t->cpus);
  remove_all();
}

int
main (void)
{
  REQUIRE(mkdtemp(root) != NULL);
  remove_all();
  for (size_t i = 0; i < sizeof trees / sizeof trees[0]; i++)
    check_tree(&trees[i]);
  CHECK(rs_cpus() >= 1);
  CHECK(rs_cpus() <= rs_cpu_quota(""));
  return report();
}
