/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Fuzz target: the decoder. First byte: the mode; then up to 15 bytes of code. */
#include <string.h>

#include "cpu/x86/mode.h"
#include "engine/x86/decode.h"
#include "fuzz.h"

static const x86_mode_t fuzz_modes[] = {
	0,
	MODE_PE,
	MODE_PE | MODE_VM | 3,
	MODE_PE | MODE_32 | MODE_SS32,
	MODE_PE | MODE_32 | MODE_SS32 | MODE_FLAT,
	MODE_PE | MODE_LMA | MODE_32 | MODE_SS32 | MODE_FLAT | 3,
	MODE_PE | MODE_LMA | MODE_64 | MODE_FLAT,
	MODE_PE | MODE_LMA | MODE_64 | MODE_FLAT | 3,
};

static const struct x86_host *host(void)
{
	static struct x86_host h;
	static bool made;
	const char *why = "the host cannot be probed";

	if (!made && x86_host_probe(&h, NULL, &why))
		fuzz_failed("%s", why);
	if (!made)
		decode_init();
	made = true;
	return &h;
}

static void check(const struct decoded *d, int r, const u8 *code, unsigned n)
{
	const struct x86_insn *insn = &d->insn;

	if (!insn->len || insn->len > n || memcmp(insn->bytes, code, insn->len))
		fuzz_failed("length %u of %u, or other bytes", insn->len, n);
	if (r)
		return;
	if (insn->adsize != 2 && insn->adsize != 4 && insn->adsize != 8)
		fuzz_failed("address size %u", insn->adsize);
	if (d->ngpr > ARRAY_SIZE(d->gpr) || d->cls > CLS_UD || d->state > STATE_AVX512)
		fuzz_failed("%u registers, class %u, state %u", d->ngpr, d->cls, d->state);
	if (insn->has_mem &&
	    ((insn->base >= 16 && insn->base != INSN_NO_REG && insn->base != INSN_RIP) ||
	     (insn->index >= 32 && insn->index != INSN_NO_REG)))
		fuzz_failed("base %u, index %u", insn->base, insn->index);
	for (unsigned i = 0; i < d->ngpr; i++)
		if (d->gpr[i].reg >= 16)
			fuzz_failed("register %u", d->gpr[i].reg);
	if (d->has_modrm && d->modrm_off >= insn->len)
		fuzz_failed("ModRM at %u of %u", d->modrm_off, insn->len);
}

/* What an instruction is does not depend on what is behind it. */
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct decoded d, again;
	const u8 *code = data + 1;
	unsigned n;
	x86_mode_t mode;
	int r;

	if (size < 2)
		return 0;
	mode = fuzz_modes[data[0] % ARRAY_SIZE(fuzz_modes)];
	n = size - 1 < 15 ? size - 1 : 15;
	r = decode(host(), mode, code, n, &d);
	if (r == -2)
		return 0;
	if (r != 0 && r != -1)
		fuzz_failed("decode() returns %d", r);
	check(&d, r, code, n);
	if (r)
		return 0;
	if (decode(host(), mode, code, d.insn.len, &again) || memcmp(&d, &again, sizeof(d)))
		fuzz_failed("the bytes behind it change what it is");
	if (d.insn.len > 1 && decode(host(), mode, code, d.insn.len - 1, &again) == 0)
		fuzz_failed("%u bytes are an instruction, and %u too", d.insn.len, d.insn.len - 1);
	return 0;
}
