# SPDX-License-Identifier: MIT OR Apache-2.0
# A thin front of meson: everything that a person types.
BUILD ?= build
PREFIX ?= /usr/local
T ?= 10
SEED ?= 1
# Extra arguments for tools/soak
SOAK ?=
# Extra arguments for meson, as in: make check MESON_ARGS=-Dwerror=true
MESON_ARGS ?=
# Arguments for the program, as in: make run ARGS='--mem 2G -v'
ARGS ?=

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) --quiet

$(BUILD)/build.ninja:
	@tools/deps --check build
	@meson setup $(BUILD) --prefix=$(PREFIX) $(MESON_ARGS)

# Install with apt what is missing; instant and offline when nothing is.
deps:
	@tools/deps build run check

run:
	@tools/deps build run
	@$(MAKE) --no-print-directory all
	@$(BUILD)/anykvm fetch >/dev/null
	@$(BUILD)/anykvm run $(ARGS)

# The tests of every change: minutes. The last line is "N passed, N failed, N skipped".
check: check-build
	@tools/check $(BUILD)

check-build:
	@tools/deps build run check
	@$(MAKE) --no-print-directory $(BUILD)/build.ninja
	@$(if $(MESON_ARGS),meson configure $(BUILD) $(MESON_ARGS))
	@$(MAKE) --no-print-directory all
	@$(BUILD)/anykvm fetch >/dev/null || echo 'make check: no kernel: tests that boot one are skipped' >&2

# Everything: the long tests too, with sanitizers, and a build by the other compiler.
check-all: check-build
	@$(MAKE) --no-print-directory check-clang
	@$(MAKE) --no-print-directory check-asan
	@tools/check $(BUILD) --long

check-clang:
	@tools/deps build clang
	@test -e build-clang/build.ninja || CC=clang meson setup build-clang -Dwerror=true
	@ninja -C build-clang --quiet
	@tools/check-leaf build-clang/libanykvm-leaf.a

# Unit, instruction and one boot test under AddressSanitizer and UndefinedBehaviorSanitizer.
check-asan: export ASAN_OPTIONS = handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0
check-asan: export UBSAN_OPTIONS = halt_on_error=1:print_stacktrace=1
check-asan:
	@tools/deps build run check
	@test -e build-asan/build.ninja || meson setup build-asan -Db_sanitize=address,undefined -Db_lundef=false
	@ninja -C build-asan --quiet
	@build-asan/anykvm fetch >/dev/null
	@tools/check build-asan --patience 5 --suite unit --suite insn --suite asan

# Tests at random seeds, differential runs and fuzz targets over and over; logs, resumes and adds up core time.
# SOAK='--only stream': one job alone.
soak: all fuzz-build
	@ninja -C $(BUILD) --quiet tests/insn/insn tests/modes/modes
	@tools/soak $(BUILD) --minutes $(T) --seed $(SEED) $(SOAK)

# The fuzz targets under libFuzzer, T minutes each; new inputs are kept in build-fuzz/corpus-NAME.
fuzz: fuzz-build
	@for t in decode stream; do mkdir -p build-fuzz/corpus-$$t && \
		build-fuzz/tests/fuzz/libfuzzer-$$t -handle_segv=0 -handle_bus=0 -handle_fpe=0 -handle_ill=0 \
		-timeout=0 -max_len=256 -verbosity=0 -print_final_stats=1 -max_total_time=$$((60 * $(T))) \
		-artifact_prefix=build-fuzz/ build-fuzz/corpus-$$t tests/fuzz/testdata/$$t || exit 1; done

fuzz-build:
	@tools/deps build clang
	@test -e build-fuzz/build.ninja || CC=clang meson setup build-fuzz \
		-Dc_args=-fsanitize-coverage=inline-8bit-counters,pc-table
	@ninja -C build-fuzz --quiet tests/fuzz/libfuzzer-decode tests/fuzz/libfuzzer-stream

bench:
	@tools/deps build run bench
	@$(MAKE) --no-print-directory all
	@$(BUILD)/anykvm fetch >/dev/null
	@$(MAKE) --no-print-directory $(BUILD)/bench/exits $(BUILD)/bench/dirty
	@bench/boot.py $(BUILD)/anykvm
	@bench/qemu.py $(BUILD)/anykvm
	@$(BUILD)/bench/exits
	@$(BUILD)/anykvm exec -- $(BUILD)/bench/exits --device
	@$(BUILD)/bench/dirty wp
	@$(BUILD)/bench/dirty pml
	@bench/move.py $(BUILD)/anykvm
	@bench/run.py $(BUILD)/anykvm $(ARGS)

$(BUILD)/bench/exits $(BUILD)/bench/dirty: $(BUILD)/bench/%: bench/%.c include/anykvm/anykvm.h | $(BUILD)/build.ninja
	@mkdir -p $(@D)
	@$(CC) -std=gnu11 -O2 -Wall -Wextra -Iinclude -o $@ $< -L$(BUILD) -lanykvm '-Wl,-rpath,$$ORIGIN/..'

# With DESTDIR and PREFIX as usual.
install: $(BUILD)/build.ninja
	@$(if $(filter file,$(origin PREFIX)),,meson configure $(BUILD) -Dprefix=$(PREFIX))
	@$(MAKE) --no-print-directory all
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild

# docs/CAVEATS.md from the DIFFERS comments.
caveats:
	@tools/caveats > docs/CAVEATS.md.new && mv docs/CAVEATS.md.new docs/CAVEATS.md

# docs/ABI.md from the tables of ioctls and capabilities.
abi-docs:
	@tools/abi-docs > docs/ABI.md.new && mv docs/ABI.md.new docs/ABI.md

format:
	@clang-format -i $$(git ls-files -co --exclude-standard '*.c' '*.h' | grep -v '^tests/style/bad/')

clean:
	@rm -rf $(BUILD) build-asan build-clang build-fuzz

.PHONY: all deps run check check-build check-all check-clang check-asan soak fuzz fuzz-build bench install caveats abi-docs format clean
