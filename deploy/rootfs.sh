#!/bin/sh
# rootfs.sh PROGRAM FOLDER: lays out all that a container needs to run PROGRAM - it, the libraries it is linked to,
# certificates to check others by, and a place for data - and nothing else: no shell, no other program.
set -eu
program=$1
root=$2

mkdir -p "$root/bin" "$root/data" "$root/etc/ssl/certs"
cp "$program" "$root/bin/project-yum"
# The loader's line has no arrow: /lib64/ld-linux-x86-64.so.2 (0x…).
ldd "$program" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
fi
