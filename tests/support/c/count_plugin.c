/*
 * count_plugin.c: a QEMU TCG plugin that counts how often the instruction at each address is executed. Debian ships no
 * qemu-plugin.h; the functions below are the part of its version 1 that is used (QEMU docs/devel/tcg-plugins).
 *
 * QEMU calls it before each instruction: one in an IT block that does not pass is counted, and so is one that then faults.
 *
 * Argument: out=FILE, which gets a line "address count" for each instruction.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

typedef void (*tb_trans_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*udata_cb)(qemu_plugin_id_t id, void *userdata);
typedef void (*exec_cb)(unsigned int vcpu, void *userdata);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_trans_cb cb);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, exec_cb cb, enum qemu_plugin_cb_flags flags,
                                            void *userdata);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, udata_cb cb, void *userdata);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);

#define EXPORT __attribute__((visibility("default")))

enum { REGIONS = 2, REGION_BYTES = 4 << 20 };
static const uint64_t origins[REGIONS] = {0, 0x20000000}; /* code and RAM of the MPS2 boards */
static uint64_t counts[REGIONS][REGION_BYTES / 2], elsewhere;
static const char *out;

static void count(unsigned int vcpu, void *counter)
{
    (void)vcpu;
    ++*(uint64_t *)counter;
}

static uint64_t *counter_of(uint64_t address)
{
    for (int r = 0; r < REGIONS; r++) {
        if (address - origins[r] < REGION_BYTES) {
            return &counts[r][(address - origins[r]) / 2];
        }
    }
    return &elsewhere;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        qemu_plugin_register_vcpu_insn_exec_cb(insn, count, QEMU_PLUGIN_CB_NO_REGS,
                                               counter_of(qemu_plugin_insn_vaddr(insn)));
    }
}

static void write_counts(qemu_plugin_id_t id, void *userdata)
{
    (void)id, (void)userdata;
    FILE *file = fopen(out, "w");
    if (file == NULL) {
        perror(out);
        abort();
    }
    for (int r = 0; r < REGIONS; r++) {
        for (uint64_t i = 0; i < REGION_BYTES / 2; i++) {
            if (counts[r][i] != 0) {
                fprintf(file, "%" PRIu64 " %" PRIu64 "\n", origins[r] + 2 * i, counts[r][i]);
            }
        }
    }
    if (elsewhere != 0) {
        fprintf(file, "%" PRIu64 " %" PRIu64 "\n", UINT64_MAX, elsewhere);
    }
    fclose(file);
}

EXPORT int qemu_plugin_version = 1;

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) {
        fprintf(stderr, "count_plugin: the argument is out=FILE\n");
        return 1;
    }
    out = strdup(argv[0] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, write_counts, NULL);
    return 0;
}
