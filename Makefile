# libi2psock. `make help` lists what can be made.

CC ?= cc
CXX ?= c++
CFLAGS ?= -O2 -g
CARGO ?= cargo
RUSTC ?= rustc
PKG_CONFIG ?= pkg-config
INSTALL ?= install
OBJCOPY ?= objcopy
ROUTER ?= auto

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
MANDIR ?= $(PREFIX)/share/man
DESTDIR ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
# The number in the soname stays: from 0.1 on the ABI only grows.
SONAME := libi2psock.so.0
SOFILE := $(SONAME).$(shell echo $(VERSION) | cut -d. -f2-3)

ROOT := $(CURDIR)
TARGET := $(ROOT)/target
RELEASE := $(TARGET)/release
PC := $(TARGET)/pkgconfig
EXAMPLES := server client dgram_server dgram_client lookup poll i2pcat chat tunnel
EXAMPLE_DIR := $(TARGET)/examples-c
EXAMPLE_BINS := $(EXAMPLES:%=$(EXAMPLE_DIR)/%)
BENCH_DIR := $(TARGET)/bench
BENCH_BINS := $(patsubst %,$(BENCH_DIR)/%,end load relay calls)
EXAMPLE_FLAGS := -std=c99 -Wall -Wextra -Wpedantic -Werror
NETBOX := $(TARGET)/netbox/release/netbox

# Whatever the environment says: the scripts look there.
export CARGO_TARGET_DIR := $(TARGET)
export MAKE_COMMAND := $(MAKE)
export CC CXX CFLAGS LDFLAGS CARGO RUSTC PKG_CONFIG

CHECKS := lint rust c package ffi examples netbox i2pd

.PHONY: all help lib pkgconfig examples bridge netbox demo bench check $(CHECKS:%=check-%) install uninstall header clean
.DELETE_ON_ERROR:

all: lib pkgconfig

help:
	@echo 'make                 the library, and pkg-config files for using it where it is: target/pkgconfig'
	@echo 'make demo            two programs find each other and talk; ROUTER=auto, bridge, netbox or i2pd'
	@echo 'make examples        the programs of examples-c: target/examples-c'
	@echo 'make check           every test; also check-lint, check-rust, check-c, check-package, check-ffi, check-examples,'
	@echo '                     check-netbox, check-i2pd'
	@echo 'make bench           figures, compared with programs written by hand in C: two minutes'
	@echo 'make install         PREFIX=/usr/local, LIBDIR, INCLUDEDIR, MANDIR, DESTDIR'
	@echo 'make uninstall       the same variables as with install'
	@echo 'make header          writes include/i2psock.h from the source'
	@echo 'make clean'

lib:
	$(CARGO) build --release --lib --locked
	@# Not anew each time: programs that use it may be starting.
	@test "$$(readlink $(RELEASE)/$(SONAME))" = libi2psock.so || ln -sf libi2psock.so $(RELEASE)/$(SONAME)

# What a C compiler has to link besides the static library. -lc and -lgcc_s it adds by itself, in the way that fits.
native_libs = $$(echo | $(RUSTC) --crate-type staticlib --print native-static-libs -o $(PC)/.native.a - 2>&1 \
	| sed -n 's/^note: native-static-libs: *//p' | tr ' ' '\n' | grep -v -x -e -lc -e -lgcc_s | tr '\n' ' ' | sed 's/ $$//')

fill_in = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR:$(PREFIX)/%=$${prefix}/%)|' \
	-e 's|@INCLUDEDIR@|$(INCLUDEDIR:$(PREFIX)/%=$${prefix}/%)|' -e 's|@VERSION@|$(VERSION)|' \
	-e 's|@ROOT@|$(ROOT)|' -e 's|@RELEASE@|$(RELEASE)|' -e "s|@NATIVE_LIBS@|$$(cat $(PC)/native-libs)|"

pkgconfig: $(PC)/native-libs
	@# In one go: steps of `make check` that go on at the same time may be reading them.
	@for name in i2psock i2psock-uninstalled; do \
		$(fill_in) pkgconfig/$$name.pc.in >$(PC)/$$name.$$$$ && mv $(PC)/$$name.$$$$ $(PC)/$$name.pc || exit 1; \
	done

$(PC)/native-libs: Cargo.toml
	@mkdir -p $(PC)
	@list=$(native_libs); rm -f $(PC)/.native.a; test -n "$$list" && echo "$$list" >$@

examples: $(EXAMPLE_BINS)

$(EXAMPLE_DIR)/%: examples-c/%.c examples-c/common.c examples-c/common.h include/i2psock.h | all
	@mkdir -p $(EXAMPLE_DIR)
	$(CC) $(EXAMPLE_FLAGS) $(CPPFLAGS) $(CFLAGS) -o $@ $< examples-c/common.c \
		$$(PKG_CONFIG_PATH=$(PC) $(PKG_CONFIG) --cflags --libs i2psock) $(LDFLAGS)

bridge:
	$(CARGO) build --release --package i2psock-bridge --locked

# Some 260 crates: a few minutes the first time.
netbox:
	@$(PKG_CONFIG) --exists openssl || { echo 'netbox needs pkg-config and the OpenSSL headers (libssl-dev)'; exit 1; }
	$(CARGO) build --release --locked --manifest-path tests/netbox/Cargo.toml --target-dir $(TARGET)/netbox

demo: examples bridge
	@if [ '$(ROUTER)' = netbox ]; then $(MAKE) --no-print-directory netbox; fi
	@examples-c/demo.sh '$(ROUTER)'

bench: examples bridge $(BENCH_BINS)
	tests/bench/run.sh

$(BENCH_DIR)/%: tests/bench/%.c tests/bench/bench.h include/i2psock.h | all
	@mkdir -p $(BENCH_DIR)
	$(CC) $(EXAMPLE_FLAGS) -pthread $(CPPFLAGS) $(CFLAGS) -o $@ $< \
		$$(PKG_CONFIG_PATH=$(PC) $(PKG_CONFIG) --cflags --libs i2psock) $(LDFLAGS)

# All steps, also after a failure.
check:
	@tests/check.sh $(CHECKS)

heading = @printf '\n==== %s: %s\n' '$@'

check-lint:
	$(heading) 'format and lints of the Rust code'
	tests/cargo.sh lint

check-rust:
	$(heading) 'the Rust tests'
	tests/cargo.sh tests

check-c:
	$(heading) 'the C tests'
	@$(MAKE) --no-print-directory all bridge
	timeout 1800 tests/c/run.sh

check-package:
	$(heading) 'installing, linking, removing'
	@$(MAKE) --no-print-directory examples bridge
	timeout 1200 tests/package/run.sh

check-ffi:
	$(heading) 'C++, Go, Ruby and Zig'
	@$(MAKE) --no-print-directory all bridge
	timeout 1800 tests/ffi/run.sh

check-examples:
	$(heading) 'the example programs over the loopback bridge'
	@$(MAKE) --no-print-directory examples bridge
	timeout 1800 tests/examples/run.sh bridge

check-netbox:
	$(heading) 'the example programs over a private network of real routers'
	@$(MAKE) --no-print-directory examples bridge
	@if $(PKG_CONFIG) --exists openssl; then timeout 2400 $(MAKE) --no-print-directory netbox; fi
	timeout 1800 tests/examples/run.sh netbox

check-i2pd:
	$(heading) 'the example programs over i2pd of several versions, and servers whose router fails them'
	@$(MAKE) --no-print-directory examples bridge
	timeout --foreground 2400 tests/i2pd/check.sh

install:
	@test -f $(RELEASE)/libi2psock.so -a -f $(RELEASE)/libi2psock.a -a -f $(PC)/native-libs \
		|| $(MAKE) --no-print-directory all
	$(INSTALL) -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(PKGCONFIGDIR) \
		$(DESTDIR)$(MANDIR)/man3
	$(INSTALL) -m 755 $(RELEASE)/libi2psock.so $(DESTDIR)$(LIBDIR)/$(SOFILE)
	ln -sf $(SOFILE) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libi2psock.so
	@# Without what only Rust's own linking can use, it is a fifth of the size.
	$(OBJCOPY) --strip-debug -R .llvmbc -R .llvmcmd $(RELEASE)/libi2psock.a $(DESTDIR)$(LIBDIR)/libi2psock.a \
		|| $(INSTALL) -m 644 $(RELEASE)/libi2psock.a $(DESTDIR)$(LIBDIR)/libi2psock.a
	chmod 644 $(DESTDIR)$(LIBDIR)/libi2psock.a
	$(INSTALL) -m 644 include/i2psock.h $(DESTDIR)$(INCLUDEDIR)/i2psock.h
	@echo 'writing $(DESTDIR)$(PKGCONFIGDIR)/i2psock.pc'
	@$(fill_in) pkgconfig/i2psock.pc.in >$(DESTDIR)$(PKGCONFIGDIR)/i2psock.pc
	@sed 's|@VERSION@|$(VERSION)|' man/i2psock.3.in >$(DESTDIR)$(MANDIR)/man3/i2psock.3
	@chmod 644 $(DESTDIR)$(PKGCONFIGDIR)/i2psock.pc $(DESTDIR)$(MANDIR)/man3/i2psock.3

uninstall:
	rm -f $(DESTDIR)$(LIBDIR)/$(SOFILE) $(DESTDIR)$(LIBDIR)/$(SONAME) $(DESTDIR)$(LIBDIR)/libi2psock.so \
		$(DESTDIR)$(LIBDIR)/libi2psock.a $(DESTDIR)$(INCLUDEDIR)/i2psock.h $(DESTDIR)$(PKGCONFIGDIR)/i2psock.pc \
		$(DESTDIR)$(MANDIR)/man3/i2psock.3

header:
	I2PSOCK_WRITE_HEADER=1 $(CARGO) test --test header --locked

clean:
	$(CARGO) clean
