/* SPDX-License-Identifier: Apache-2.0 */
/* probe.c - does something else live on this device? Asked before a device is taken, by libblkid: filesystems, RAID and LVM members,
 * encrypted volumes, swap, and partition tables. */
#include <blkid/blkid.h>
#include <stdio.h>

#include "src/ioe/file.h"

/* What the probe found, e.g. "ext4" or "gpt partition table". */
static void describe(blkid_probe pr, const char *path, char *errmsg)
{
	const char *name;

	if (!blkid_probe_lookup_value(pr, "TYPE", &name, NULL))
		snprintf(errmsg, ERRMSG_LEN, "%s carries %s", path, name);
	else if (!blkid_probe_lookup_value(pr, "PTTYPE", &name, NULL))
		snprintf(errmsg, ERRMSG_LEN, "%s carries a partition table (%s)", path, name);
	else
		snprintf(errmsg, ERRMSG_LEN, "%s carries a signature", path);
}

static int probe(blkid_probe pr, const char *path, char *errmsg)
{
	if (blkid_probe_get_size(pr) == 0)
		return 0;
	if (blkid_probe_enable_superblocks(pr, 1) ||
	    blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE) ||
	    blkid_probe_enable_partitions(pr, 1))
		return -ENOMEM;
	switch (blkid_do_safeprobe(pr)) {
	case 1:
		return 0;
	case 0:
		if (errmsg)
			describe(pr, path, errmsg);
		return -E_FOREIGN;
	case -2:
		if (errmsg)
			snprintf(errmsg, ERRMSG_LEN, "%s carries signatures of several kinds", path);
		return -E_FOREIGN;
	default:
		if (errmsg)
			snprintf(errmsg, ERRMSG_LEN, "cannot read %s to look for signatures", path);
		return -EIO;
	}
}

int probe_signature(struct ioe *e, const char *path, char *errmsg)
{
	blkid_probe pr;
	int r;

	(void)e;
	errno = 0;
	pr = blkid_new_probe_from_filename(path);
	if (!pr) {
		r = errno ? -errno : -ENOMEM;
		if (errmsg)
			snprintf(errmsg, ERRMSG_LEN, "cannot open %s: %s", path, err_text(r));
		return r;
	}
	r = probe(pr, path, errmsg);
	blkid_free_probe(pr);
	return r;
}
