#!/bin/sh
# Builds a root file system whose C library is musl, for test_other_distributions.py: nothing of glibc is in it.
#
#   musl_root.sh CACHE MIRROR KEYRING
#
# musl and busybox are Debian's binaries; Python and what its modules need are compiled from Debian's source packages
# with the machine's gcc, and nothing is installed on the machine. The result is CACHE/root, CACHE/done says that it is
# whole. About four minutes on two cores; every step leaves a mark, so what is cut short goes on where it was.
set -eu
script=$(readlink -f "$0") cache=$1 mirror=$2 keyring=$3
mkdir -p "$cache/marks" "$cache/build" "$cache/apt" "$cache/prefix/include" "$cache/prefix/lib"
cd "$cache"
cache=$(pwd)
sysroot=$cache/sysroot prefix=$cache/prefix root=$cache/root jobs=-j2
export LC_ALL=C SOURCE_DATE_EPOCH=1700000000

once() { # once STEP: runs the function of that name, unless it has been
    [ -e "marks/$1" ] || { echo "== $1"; (set -eu; "$1"); : > "marks/$1"; }
}

packages() {
    cd apt
    mkdir -p state/lists/partial cache/archives/partial etc/preferences.d etc/apt.conf.d binary source
    : > state/status
    for suite in trixie bookworm; do
        echo "deb [signed-by=$keyring] $mirror $suite main"
        echo "deb-src [signed-by=$keyring] $mirror $suite main"
    done > sources.list
    cat > apt.conf << END
Dir::State "$PWD/state"; Dir::State::status "$PWD/state/status"; Dir::Cache "$PWD/cache"; Dir::Etc "$PWD/etc";
Dir::Etc::sourcelist "$PWD/sources.list"; Dir::Etc::sourceparts "-"; Dir::Etc::trusted "/dev/null";
APT::Architecture "amd64"; APT::Architectures "amd64"; APT::Sandbox::User "root"; APT::Default-Release "trixie";
END
    export APT_CONFIG=$PWD/apt.conf
    apt-get -q update
    (cd binary && apt-get -q download musl musl-dev musl-tools linux-libc-dev busybox-static libffi-dev)
    cd source # a mirror may list a security update's source before it has it: then the one before it will do
    for package in python3.13 libffi zlib openssl sqlite3 bzip2 xz-utils; do
        for version in $(apt-cache showsrc "$package" | sed -n 's/^Version: //p'); do
            apt-get -q source --download-only "$package=$version" && continue 2
        done
        echo "no source of $package" >&2
        exit 1
    done
}

unpack() {
    for package in apt/binary/*.deb; do dpkg -x "$package" "$sysroot"; done
    mkdir kernel
    ln -s ../sysroot/usr/include/linux ../sysroot/usr/include/asm-generic ../sysroot/usr/include/mtd kernel
    ln -s ../sysroot/usr/include/x86_64-linux-gnu/asm kernel/asm
    for source in apt/source/*.orig.tar.*; do
        case $source in *.asc) ;; *) tar -C build -xf "$source" ;; esac
    done
    # gcc as Debian's musl-gcc calls it, at this place; the kernel's headers behind musl's
    sed "s#/usr/\(include\|lib\)/x86_64-linux-musl#$sysroot/usr/\1/x86_64-linux-musl#g; s#-isystem include%s#-isystem $cache/kernel &#" \
        "$sysroot/usr/lib/x86_64-linux-musl/musl-gcc.specs" > musl.specs
    cat > musl-gcc << END
#!/bin/sh
[ "\$*" != --print-multiarch ] || { echo x86_64-linux-musl; exit; }
exec gcc "\$@" -specs "$cache/musl.specs"
END
    chmod +x musl-gcc
}

zlib() {
    cd build/zlib-*
    CC=$cc CFLAGS="$flags" ./configure --static --prefix="$prefix"
    make $jobs libz.a
    cp libz.a "$prefix/lib"
    cp zlib.h zconf.h "$prefix/include"
}

bzip() {
    cd build/bzip2-*
    make $jobs CC="$cc" CFLAGS="$flags -D_FILE_OFFSET_BITS=64" libbz2.a
    cp libbz2.a "$prefix/lib"
    cp bzlib.h "$prefix/include"
}

xz() {
    cd build/xz-*
    ./configure CC="$cc" CFLAGS="$flags" --prefix="$prefix" --disable-shared --disable-nls --disable-xz --disable-xzdec \
        --disable-lzmadec --disable-lzmainfo --disable-scripts --disable-doc --host=x86_64-linux-musl
    make $jobs
    make install
}

ffi() { # by hand: Debian's source has no configure, and its header doesn't depend on the C library
    cd build/libffi-*
    cp "$sysroot"/usr/include/x86_64-linux-gnu/ffi*.h "$prefix/include"
    cat > fficonfig.h << END
#define STDC_HEADERS 1
#define HAVE_ALLOCA_H 1
#define HAVE_MEMCPY 1
#define HAVE_LONG_DOUBLE 1
#define HAVE_MKOSTEMP 1
#define HAVE_AS_X86_PCREL 1
#define HAVE_AS_X86_64_UNWIND_SECTION_TYPE 1
#define HAVE_AS_CFI_PSEUDO_OP 1
#define EH_FRAME_FLAGS "a"
#define SIZEOF_DOUBLE 8
#define SIZEOF_LONG_DOUBLE 16
#define SIZEOF_SIZE_T 8
#define FFI_EXEC_STATIC_TRAMP 1
#ifdef LIBFFI_ASM
#define FFI_HIDDEN(name) .hidden name
#else
#define FFI_HIDDEN __attribute__ ((visibility ("hidden")))
#endif
END
    for file in prep_cif types raw_api closures tramp x86/ffi64 x86/ffiw64; do
        $cc $flags -DHAVE_CONFIG_H -I. -I"$prefix/include" -Iinclude -Isrc -c "src/$file.c" -o "$(basename $file).o"
    done
    for file in unix64 win64; do
        $cc $flags -DHAVE_CONFIG_H -I. -I"$prefix/include" -Iinclude -Isrc -c "src/x86/$file.S" -o "$file.o"
    done
    ar rcs "$prefix/lib/libffi.a" ./*.o
}

sqlite() {
    cd build/sqlite3-*
    ./configure CC="$cc" BUILD_CC=gcc --disable-tcl --disable-readline --host=x86_64-linux-musl
    make sqlite3.c
    $cc $flags -DSQLITE_THREADSAFE=1 -c sqlite3.c
    ar rcs "$prefix/lib/libsqlite3.a" sqlite3.o
    cp sqlite3.h "$prefix/include"
}

openssl() {
    cd build/openssl-*
    CC=$cc ./Configure linux-x86_64 no-shared no-tests no-engine no-module no-dso no-ktls no-afalgeng no-legacy -fPIC \
        --prefix="$prefix" --libdir=lib --openssldir=/etc/ssl
    make $jobs build_generated
    make $jobs libcrypto.a libssl.a
    cp libcrypto.a libssl.a "$prefix/lib"
    cp -r include/openssl "$prefix/include"
}

python() { # configure runs what it compiles, so the loader must be where it will be: in a mount namespace of our own
    mkdir -p loader
    ln -sf "$sysroot/usr/lib/x86_64-linux-musl/libc.so" loader/ld-musl-x86_64.so.1
    unshare --mount sh "$script" "$cache" "$mirror" "$keyring" compile_python
}

compile_python() {
    mount -t overlay -o "ro,lowerdir=$cache/loader:$(readlink -f /lib)" overlay "$(readlink -f /lib)"
    cd build/Python-*
    # The thread stacks of Alpine's Python: musl's own are of 128 kB.
    ./configure CC="$cc" CFLAGS="-DTHREAD_STACK_SIZE=0x100000" CPPFLAGS="-I$prefix/include" LDFLAGS="-L$prefix/lib" \
        --prefix=/usr --with-openssl="$prefix" --disable-test-modules --without-doc-strings --with-ensurepip=no \
        PKG_CONFIG=false \
        LIBFFI_CFLAGS="-I$prefix/include" LIBFFI_LIBS="-L$prefix/lib -lffi" \
        LIBSQLITE3_CFLAGS="-I$prefix/include" LIBSQLITE3_LIBS="-L$prefix/lib -lsqlite3 -lm" \
        ZLIB_CFLAGS="-I$prefix/include" ZLIB_LIBS="-L$prefix/lib -lz" \
        BZIP2_CFLAGS="-I$prefix/include" BZIP2_LIBS="-L$prefix/lib -lbz2" \
        LIBLZMA_CFLAGS="-I$prefix/include" LIBLZMA_LIBS="-L$prefix/lib -llzma"
    make $jobs
    make DESTDIR="$cache/python" install
}

compose() {
    rm -rf "$root"
    mkdir -p "$root/bin" "$root/lib" "$root/usr/bin" "$root/usr/lib" "$root/usr/sbin" "$root/sbin"
    cp sysroot/usr/lib/x86_64-linux-musl/libc.so "$root/lib/ld-musl-x86_64.so.1"
    ln -s ld-musl-x86_64.so.1 "$root/lib/libc.musl-x86_64.so.1"
    find sysroot -path '*bin/busybox' -exec cp {} "$root/bin/busybox" \;
    for name in $("$root/bin/busybox" --list-full); do
        [ "$name" = bin/busybox ] || ln -s /bin/busybox "$root/$name"
    done
    (cd python/usr && tar -c --exclude=__pycache__ --exclude='config-3*' --exclude=idlelib --exclude=tkinter \
        --exclude=turtledemo --exclude='lib2to3' bin lib) | tar -x -C "$root/usr"
    rm -f "$root"/usr/lib/*.a
    find "$root" -name '*.so' -o -name 'python3.1?' -type f | xargs strip --strip-unneeded 2> /dev/null || true
}

cc=$cache/musl-gcc flags="-O2 -fPIC"
[ -z "${4-}" ] || { "$4"; exit; }
exec 9> lock
flock 9 # two runs would compile into one another
for step in packages unpack zlib bzip xz ffi sqlite openssl python compose; do once $step; done
: > done
