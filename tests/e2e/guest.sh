# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2154 # dir comes from lib.sh
# A Debian kernel in QEMU (software emulation) with a busybox initramfs: the place for real kernel initiators and guest filesystems.
# Source it after lib.sh.

guest_requires() {
	requires qemu-system-x86_64 busybox cpio
	guest_kernel=$(find /boot -maxdepth 1 -name 'vmlinuz-*' 2>/dev/null | sort -V | tail -n 1)
	[ -n "$guest_kernel" ] || skip "no kernel image in /boot (linux-image-amd64)"
	guest_release=${guest_kernel#/boot/vmlinuz-}
	[ -d "/lib/modules/$guest_release" ] || skip "no modules for $guest_release"
}

# guest_copy ROOT PROGRAM: a program with its shared libraries
guest_copy() {
	local path lib
	path=$(command -v "$2") || skip "$2 is not installed"
	mkdir -p "$1/sbin"
	cp -L "$path" "$1/sbin/$2"
	ldd "$path" | grep -o '/[^ ]*' | while read -r lib; do
		mkdir -p "$1$(dirname "$lib")"
		cp -nL "$lib" "$1$lib"
	done
}

# guest_image FILE "MODULE..." "PROGRAM...": an initramfs that loads the modules and runs /script
guest_build() {
	local image=$1 modules=$2 programs=$3 script=$4 root=$dir/guest-root m p
	rm -rf "$root"
	mkdir -p "$root"/{bin,sbin,dev,proc,sys,mnt,tmp,modules,etc}
	cp -L "$(command -v busybox)" "$root/bin/busybox"
	: >"$root/modules/order"
	for m in $modules; do
		modprobe -S "$guest_release" --show-depends "$m" 2>/dev/null | awk '$1=="insmod"{print $2}' | while read -r p; do
			[ -f "$root/modules/$(basename "$p")" ] && continue
			cp "$p" "$root/modules/"
			basename "$p" >>"$root/modules/order"
		done
	done
	for p in $programs; do guest_copy "$root" "$p"; done
	cp "$script" "$root/script"
	cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r m; do insmod "/modules/$m" || echo "GUEST: cannot load $m"; done </modules/order
sh /script; rc=$?
sync
echo "GUEST-RC $rc"
poweroff -f
INIT
	chmod +x "$root/init" "$root/script"
	(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$image"
}

# guest_run SECONDS "MODULE..." "PROGRAM..." SCRIPT QEMU-ARG...: boots, runs SCRIPT inside, fails unless it exits 0. Output in $dir/guest.log
guest_run() {
	local seconds=$1 modules=$2 programs=$3 script=$4; shift 4
	guest_build "$dir/guest.img" "$modules" "$programs" "$script"
	timeout "$seconds" qemu-system-x86_64 -accel tcg -m 512 -nographic -no-reboot -nodefaults -serial stdio -kernel "$guest_kernel" \
		-initrd "$dir/guest.img" -append "console=ttyS0 quiet panic=-1" "$@" >"$dir/guest.log" 2>&1 </dev/null || true
	grep -aq "^GUEST-RC 0" "$dir/guest.log" || fail "in the guest: $(tail -n 25 "$dir/guest.log")"
}
