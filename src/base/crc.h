/* SPDX-License-Identifier: Apache-2.0 */
/* crc.h - CRC32C (Castagnoli), the one checksum of disks and wires (RFC 3720 appendix B.4 has the test vectors). */
#ifndef STRATA_BASE_CRC_H
#define STRATA_BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

/* CRC32C of the bytes. */
uint32_t crc32c(const void *data, size_t len_bytes);

/* CRC32C of a || b given crc = crc32c(a): continue over the next piece. crc32c_more(crc32c(a), b) == crc32c(a || b). */
uint32_t crc32c_more(uint32_t crc, const void *data, size_t len_bytes);

#endif
