#!/usr/bin/env bash
# Makes what is handed out, in target/dist:
#   slotway-VERSION-TARGET.tar.gz   binary, manual pages, example configuration, systemd unit, docs
#   slotway_VERSION_ARCH.deb        the same as a Debian package, where dpkg-deb is there
# and their checksums. The binary is static (musl) if rustup has that target, else this machine's.
#   scripts/dist.sh [--binary FILE]   with a binary that is built already
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
host=$(rustc -vV | sed -n 's/^host: //p')
target=${host/-gnu/-musl}
binary=
[ "${1:-}" != --binary ] || binary=$2
# Everything in the archives has this time, so that the same source makes the same archives.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

if [ -z "$binary" ]; then
    binary=$(scripts/shipped.sh)
    target=${binary#target/} target=${target%%/*}
elif ! file -L "$binary" | grep -q 'static'; then
    target=$host
fi

out=target/dist
name=slotway-$version-$target
rm -rf "$out"
root=$out/$name
mkdir -p "$root/man"
install -m 755 "$binary" "$root/slotway"
strip "$root/slotway"
"$root/slotway" docs man "$root/man"
cp LICENSE README.md CHANGELOG.md SECURITY.md proxy.toml "$root/"
cp -r docs "$root/docs"
cp -r deploy "$root/deploy"
cp -r deploy/systemd/slotway.service deploy/systemd/slotway.socket deploy/systemd/slotway.service.d "$root/"

archive() {
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" "$@"
}
archive -C "$out" -cf - "$name" | gzip -n9 >"$out/$name.tar.gz"

if command -v dpkg-deb >/dev/null; then
    arch=$(dpkg --print-architecture)
    deb=$out/deb
    doc=$deb/usr/share/doc/slotway
    mkdir -p "$deb/DEBIAN" "$deb/usr/bin" "$deb/usr/share/man/man1" "$doc" \
        "$deb/lib/systemd/system" "$deb/etc/slotway"
    chmod -R 755 "$deb"
    install -m 755 "$root/slotway" "$deb/usr/bin/slotway"
    install -m 644 "$root"/man/*.1 "$deb/usr/share/man/man1/"
    gzip -n9 "$deb"/usr/share/man/man1/*.1
    install -m 644 deploy/systemd/slotway.service deploy/systemd/slotway.socket "$deb/lib/systemd/system/"
    install -m 644 proxy.toml "$deb/etc/slotway/proxy.toml"
    cp -r docs README.md SECURITY.md "$doc/"
    # An example: each of its lines wants a file.
    mkdir -p "$doc/examples/slotway.service.d"
    cp deploy/systemd/slotway.service.d/credentials.conf "$doc/examples/slotway.service.d/"
    cp LICENSE "$doc/copyright"
    gzip -n9 <CHANGELOG.md >"$doc/changelog.gz"
    find "$doc" -type f -exec chmod 644 {} +
    find "$doc" -type d -exec chmod 755 {} +
    depends=
    # A static binary needs nothing, not even libc.
    ldd "$root/slotway" 2>&1 | grep -q 'statically linked\|not a dynamic' || depends='Depends: libc6'
    {
        printf 'Package: slotway\nVersion: %s\nArchitecture: %s\n' "$version" "$arch"
        printf 'Maintainer: The slotway project <slotway@localhost>\n'
        printf 'Installed-Size: %s\n' "$(du -sk --exclude=DEBIAN "$deb" | cut -f1)"
        [ -z "$depends" ] || printf '%s\n' "$depends"
        printf 'Section: database\nPriority: optional\n'
        printf 'Description: cluster-aware Redis proxy\n'
        printf ' Applications speak plain Redis to one address; slotway sends each command to\n'
        printf ' the node of a Redis Cluster that has its key, and follows the cluster when it\n'
        printf ' changes.\n .\n'
        printf ' The service is not started by the installation: it has to be told first where\n'
        printf ' the cluster is, in /etc/slotway/proxy.toml.\n'
    } >"$deb/DEBIAN/control"
    echo /etc/slotway/proxy.toml >"$deb/DEBIAN/conffiles"
    cat >"$deb/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    # After an upgrade: the running one, if there is one, is replaced.
    systemctl try-restart slotway.service || true
fi
END
    cat >"$deb/DEBIAN/prerm" <<'END'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now slotway.socket slotway.service || true
fi
END
    chmod 755 "$deb/DEBIAN/postinst" "$deb/DEBIAN/prerm"
    dpkg-deb --root-owner-group -Zgzip --build "$deb" "$out/slotway_${version}_$arch.deb" >/dev/null
    rm -rf "$deb"
fi
rm -rf "$root"
(cd "$out" && sha256sum -- *.tar.gz *.deb 2>/dev/null >SHA256SUMS || true)
ls -l "$out"
