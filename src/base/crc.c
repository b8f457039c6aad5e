/* SPDX-License-Identifier: Apache-2.0 */
#include "src/base/crc.h"

#include <isa-l/crc.h>

/* isa-l's crc32_iscsi takes and returns the register, without the inversions before and after. Its length is an int. */
enum { CRC_STEP = 1 << 30 };

uint32_t crc32c_more(uint32_t crc, const void *data, size_t len_bytes)
{
	unsigned char *p =
	    (unsigned char *)(uintptr_t)data; /* isa-l only reads, its prototype forgot const */
	uint32_t reg = ~crc;

	for (; len_bytes > CRC_STEP; len_bytes -= CRC_STEP, p += CRC_STEP)
		reg = crc32_iscsi(p, CRC_STEP, reg);
	return ~crc32_iscsi(p, (int)len_bytes, reg);
}

uint32_t crc32c(const void *data, size_t len_bytes)
{
	return crc32c_more(0, data, len_bytes);
}
