# SPDX-License-Identifier: Apache-2.0
# Every entry point of the project; `make help` lists them.
#
# Each source directory becomes one archive under build/<variant>/lib; programs and tests link the archives that the
# include rules (tools/dev/check-includes) let them see. A new .c file or test needs no line here.

VARIANT ?= plain
B       := build/$(VARIANT)
CC      ?= gcc
PREFIX  ?= /usr/local
DESTDIR ?=
JOBS    ?= $(shell nproc)
Q       := $(if $(V),,@)

WARN := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes -Wvla \
	-Wimplicit-fallthrough -Wpointer-arith -Wundef -Wformat=2 -Wno-format-zero-length -Werror
OPT_plain := -O2
OPT_asan  := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -DSTRATA_ASAN
OPT_tsan  := -O1 -fsanitize=thread
OPT_cover := -O0 --coverage
# built by `make fuzz-NAME`, with clang; gcc's warnings are the ones that count
OPT_fuzz  := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -DSTRATA_ASAN
ifeq ($(VARIANT),fuzz)
WARN := -w
endif
VERSION   := $(shell cat VERSION 2>/dev/null)
CFLAGS_ALL := -std=gnu11 -g -fno-omit-frame-pointer -fno-common -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DSTRATA_VERSION='"$(VERSION)"' \
	-I. -I$(B)/gen $(OPT_$(VARIANT)) $(OPT_HERE) $(CFLAGS)
LDLIBS := -Wl,--as-needed -luring -laio -lisal -lrocksdb -lmicrohttpd -lcurl -ljansson -linih -lprotobuf-c -lgnutls -lblkid -lpthread -lm

# ---- modules ---------------------------------------------------------------------------------------------------------
CORE      := src/wire src/ioe src/model src/base
IOPATH    := io-path/volume io-path/node io-path/device
METADATA  := metadata/api metadata/rpc metadata/jobs metadata/cluster metadata/san metadata/store
TARGETS   := targets/nbd
MODULES   := $(CORE) $(IOPATH) $(METADATA) $(TARGETS) tools/fsck tests/lib tests/lib/mock_volume tests/lib/nbd tests/lib/mock_device tests/lib/cluster tests/sim

# what a program or the tests of a directory link, by name
LINK_base     := src/base
LINK_model    := src/model src/base
LINK_ioe      := src/ioe src/model src/base
LINK_wire     := $(CORE)
LINK_device   := io-path/device $(CORE)
LINK_node     := io-path/node io-path/device $(CORE)
LINK_volume   := $(IOPATH) $(CORE)
LINK_nbd      := targets/nbd tests/lib/nbd tests/lib/mock_volume $(CORE)
LINK_noded    := $(TARGETS) $(IOPATH) $(CORE)
LINK_store    := metadata/store $(CORE)
LINK_san      := metadata/san metadata/store $(CORE)
LINK_jobs     := metadata/jobs metadata/san metadata/store $(CORE)
LINK_metadata := $(METADATA) $(CORE)
LINK_cluster  := tests/lib/cluster tests/lib/mock_device io-path/node $(METADATA) $(CORE)
LINK_fsck     := tools/fsck $(METADATA) $(IOPATH) $(CORE)
LINK_sim      := tests/sim $(TARGETS) $(METADATA) $(IOPATH) $(CORE)
LINK_all      := tools/fsck $(TARGETS) $(METADATA) $(IOPATH) $(CORE)

lib = $(B)/lib/$(subst /,-,$(1)).a
libs = $(foreach m,$(1),$(call lib,$(m)))

PROTOS   := $(wildcard src/wire/*.proto)
PROTO_H  := $(PROTOS:%.proto=$(B)/gen/%.pb-c.h)
PROTO_O  := $(PROTOS:%.proto=$(B)/gen/%.pb-c.o)
UNIT_SRC := $(wildcard tests/unit/*/test_*.c)
UNIT_BIN := $(UNIT_SRC:%.c=$(B)/%)
BINS     := $(if $(wildcard metadata/main.c),strata-metad) $(if $(wildcard io-path/main.c),strata-noded) \
	$(if $(wildcard tools/cli/main.c),strata)

.DEFAULT_GOAL := all
.PHONY: all help
all: $(BINS:%=build/bin/%) ## build the programs into build/bin

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- rules -----------------------------------------------------------------------------------------------------------
.SECONDARY:
# a unit test is compiled more often than it runs, and what takes time in it is what it tests
$(B)/tests/unit/%.o: OPT_HERE := -O0
$(B)/%.o: %.c | $(PROTO_H)
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(CFLAGS_ALL) $(WARN) -MMD -MP -c -o $@ $<

$(B)/gen/%.pb-c.h $(B)/gen/%.pb-c.c &: %.proto
	@mkdir -p $(@D)
	$(Q)protoc-c --c_out=$(B)/gen $<
$(B)/gen/%.pb-c.o: $(B)/gen/%.pb-c.c
	$(Q)$(CC) $(CFLAGS_ALL) -w -c -o $@ $<

define module_rule
SRC_$(1) := $$(filter-out %/main.c,$$(wildcard $(1)/*.c))
$(call lib,$(1)): $$(SRC_$(1):%.c=$(B)/%.o) $(if $(filter src/wire,$(1)),$(PROTO_O))
	@mkdir -p $$(@D)
	$(Q)rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach m,$(MODULES),$(eval $(call module_rule,$(m))))

define link
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) $(CFLAGS_ALL) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(1) $(LDLIBS)
endef

$(B)/bin/strata-metad: $(B)/metadata/main.o $(call libs,$(LINK_metadata))
	$(call link)
$(B)/bin/strata-noded: $(B)/io-path/main.o $(call libs,$(LINK_noded))
	$(call link)
$(B)/bin/strata: $(patsubst %.c,$(B)/%.o,$(wildcard tools/cli/*.c)) $(call libs,$(LINK_fsck))
	$(call link)
# the NBD target over memory, for foreign clients and benchmarks
$(B)/tests/bench/nbd_ramdisk: $(B)/tests/bench/nbd_ramdisk.o $(call libs,$(LINK_nbd))
	$(call link)
$(B)/tests/sim/strata-sim: $(B)/tests/sim/main.o $(call libs,$(LINK_sim))
	$(call link)
# build/bin holds the plain build; sanitizer builds stay in build/<variant>/bin
build/bin/%: build/plain/bin/%
	@mkdir -p $(@D)
	$(Q)ln -f $< $@

# tests/unit/<name>/test_x.c links LINK_<name> and tests/lib
define unit_rule
$(B)/$(basename $(1)): $(B)/$(basename $(1)).o $(call libs,tests/lib $(LINK_$(notdir $(patsubst %/,%,$(dir $(1))))))
	$$(call link,-lcmocka)
endef
$(foreach t,$(UNIT_SRC),$(eval $(call unit_rule,$(t))))

# micro benchmarks: make build/plain/tests/bench/ioe_bench
$(B)/tests/bench/ioe_%: $(B)/tests/bench/ioe_%.o $(call libs,$(LINK_ioe))
	$(call link)
$(B)/tests/bench/san_%: $(B)/tests/bench/san_%.o $(call libs,$(LINK_san))
	$(call link)
$(B)/tests/bench/volume_%: $(B)/tests/bench/volume_%.o $(call libs,$(LINK_volume))
	$(call link)

# tests/fuzz/fuzz_<name>.c links LINK_<name> and tests/lib
define fuzz_rule
$(B)/$(basename $(1)): $(B)/$(basename $(1)).o $(call libs,tests/lib $(LINK_$(patsubst fuzz_%,%,$(basename $(notdir $(1))))))
	$$(call link,-fsanitize=fuzzer)
endef
$(foreach t,$(wildcard tests/fuzz/fuzz_*.c),$(eval $(call fuzz_rule,$(t))))

-include $(shell find build -name '*.d' 2>/dev/null)

# ---- what people run -------------------------------------------------------------------------------------------------
.PHONY: deps deps-test unit programs check check-quick check-unit check-asan check-tsan check-e2e check-long lint format clean install quickstart bench fuzz
deps: ## install the Debian packages a build needs
	@tools/dev/install-deps build
deps-test: ## install those and what the tests need
	@tools/dev/install-deps build test
unit: $(UNIT_BIN) ## build the unit tests of VARIANT=plain|asan|tsan
programs: $(BINS:%=$(B)/bin/%)

check: deps-test ## everything CI runs: lint, unit tests (plain, ASan+UBSan, TSan where there are threads), end-to-end tests
	@tools/dev/check all
check-quick: ## lint and unit tests; no root, no network, no device
	@tools/dev/check quick
check-unit: ## unit tests of the plain build
	@tools/dev/check unit
check-asan: ## unit tests under ASan+UBSan
	@tools/dev/check asan
check-tsan: ## all unit tests under TSan
	@tools/dev/check tsan
check-e2e: ## end-to-end tests with real daemons
	@tools/dev/check e2e
check-long: deps-test ## the full-size runs, hours; ONLY="kill9 flips": these alone; SIZE=tiny: do they start?
	@tools/dev/check-long

FUZZ_SECS ?= 60
fuzz: $(patsubst tests/fuzz/fuzz_%.c,fuzz-%,$(wildcard tests/fuzz/fuzz_*.c)) ## libFuzzer for FUZZ_SECS each; one of them: make fuzz-nbd
fuzz-%:
	@mkdir -p build/fuzz/corpus-$*
	$(Q)$(MAKE) --no-print-directory -s VARIANT=fuzz CC=clang build/fuzz/tests/fuzz/fuzz_$*
	build/fuzz/tests/fuzz/fuzz_$* -max_total_time=$(FUZZ_SECS) -max_len=4096 -timeout=10 -print_final_stats=1 \
		build/fuzz/corpus-$* tests/fuzz/corpus-$*

# a cluster and its clients in a simulated world, one per seed: docs/simulation.md
SEED  ?= 1
SEEDS ?= 100
.PHONY: sim
sim: ## SEEDS=n simulated clusters from SEED=first on (VERBOSE=1, TRACE=1: say what happens)
	$(Q)$(MAKE) --no-print-directory -s $(B)/tests/sim/strata-sim
	$(B)/tests/sim/strata-sim --seed $(SEED) --seeds $(SEEDS) --jobs $(JOBS) $(if $(VERBOSE),--verbose) $(if $(TRACE),--trace)

lint: ## layout, include rules, forbidden calls, shell scripts
	@tools/dev/lint
format: ## apply .clang-format
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean: ## remove build/
	rm -rf build

install: all ## install programs, man pages, completion and units (DESTDIR=, PREFIX=)
	@tools/dev/install "$(DESTDIR)" "$(PREFIX)"

quickstart: ## install what is missing, build, start a cluster, run fio on a thin volume
	@tools/dev/install-deps build
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@tools/quickstart

bench: all ## fio jobs on the raw device, the runtime and NBD, one table
	@tools/bench

man: programs ## man pages from the programs' own help, into build/man
	@tools/dev/make-man $(B)/bin build/man
.PHONY: man
