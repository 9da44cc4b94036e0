# `make demo`, `make web` and `make test` need Python 3.11 and make, nothing else; they set up what they use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP = -m pip --disable-pip-version-check install --quiet
PINNED = $(PIP) --require-hashes --requirement
# As many processes as cores, but each test process holds a TensorFlow of its own.
WORKERS ?= 2
NPM := $(shell command -v npm)
LITERT_JS = examples/web/node_modules/installed

.PHONY: demo web test test-long exported-bytes fuzz fuzz-files mutate mutate-record notebook lint benchmark accuracy costs matrix pictures web-pictures hashes clean

demo: .venv/installed
	.venv/bin/keras-vit demo

# `make web MODEL=deit_tiny_patch16_224 WEIGHTS=... CALIBRATION=... LABELS=... PORT=...`; without any, the digits model.
web: .venv/installed $(LITERT_JS)
	.venv/bin/python examples/web/prepare.py $(MODEL) $(if $(WEIGHTS),--weights $(WEIGHTS)) \
		$(if $(CALIBRATION),--calibration $(CALIBRATION)) $(if $(LABELS),--labels $(LABELS))
	.venv/bin/python examples/web/serve.py $(if $(PORT),--port $(PORT))

$(LITERT_JS): examples/web/package-lock.json $(if $(NPM),,.venv-node/installed)
	cd examples/web && PATH="$(CURDIR)/.venv-node/bin:$$PATH" npm ci --silent
	touch $@

# An npm for machines without one.
.venv-node/installed: hashes/node.txt
	$(PYTHON) -m venv .venv-node
	.venv-node/bin/python $(PINNED) hashes/node.txt
	touch $@

# Without LiteRT.js the tests of the web page are skipped and say so.
test: .venv/installed .venv-device/installed
	-$(MAKE) $(LITERT_JS)
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests

# What takes longer, and what `make test` ran a sample of; `PART=1/5` is a fifth of the rest of each sample.
test-long: .venv/installed .venv-device/installed
	-$(MAKE) $(LITERT_JS)
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m long $(if $(PART),--part $(PART)) tests

# Which test runs which line, for `mutate`; after a change of the package or its tests. `TESTS="tests/layers tests/models"`
# for some of them, `LONG=1` for the long ones too.
TESTS ?= tests
mutate-record: .venv/installed
	.venv/bin/python tests/mutation/record_tests.py --workers $(WORKERS) $(if $(LONG),--long) $(TESTS)

# N random mutations of the package against the tests that run the changed lines; `JSON=FILE` keeps every result.
N ?= 300
mutate: .venv/installed
	.venv/bin/python tests/mutation/mutate.py --named --workers $(WORKERS)
	.venv/bin/python tests/mutation/mutate.py --count $(N) --seed $(or $(SEED),0) --workers $(WORKERS) \
		$(if $(JSON),--json $(JSON))

# Whether this tree exports the same bytes as another commit: `make exported-bytes BASE=main`; after a move of code.
exported-bytes: .venv/installed
	.venv/bin/python tests/exported_bytes/exported_bytes.py --base $(or $(BASE),HEAD)

# Random models through every mode and target for so many minutes; `make fuzz SEED=12` is one case again.
MINUTES ?= 5
fuzz: .venv/installed
	.venv/bin/python tests/fuzz/run.py $(if $(SEED),--seed $(SEED),--minutes $(MINUTES))

# Damaged and hostile files through every command for so many minutes; `make fuzz-files SEED=12` is one case again.
fuzz-files: .venv/installed
	.venv/bin/python tests/fuzz_files/fuzz_files.py $(if $(SEED),--seed $(SEED),--minutes $(MINUTES))

# The notebook of the script, executed; `make notebook DATA=cifar10.npz`, without it keras.datasets downloads CIFAR-10.
notebook: .venv/installed
	.venv/bin/python examples/make_notebook.py $(if $(DATA),--data $(DATA))

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/installed: pyproject.toml hashes/main.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PINNED) hashes/main.txt
	.venv/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	touch $@

# tflite-runtime 2.14 needs NumPy 1, so it has an environment of its own.
.venv-device/installed: hashes/device.txt
	$(PYTHON) -m venv .venv-device
	.venv-device/bin/python $(PINNED) hashes/device.txt
	touch $@

# The peers and this package, side by side; needs the real data (KERAS_VIT_DATA) and writes docs/benchmark*.
benchmark: .venv-benchmark/installed .venv-torch/installed
	.venv-benchmark/bin/python benchmarks/compare.py

# Every mode of every model, judged on two sets of photos; goes on where it stopped. `make accuracy ONLY='"DeiT-tiny"'`.
accuracy: .venv/installed
	.venv/bin/python benchmarks/accuracy.py $(if $(ONLY),--only $(ONLY))

# What operators cost on each class of CPU, into export/targets/xnnpack.py; needs AVX-512 VNNI and qemu.
costs: .venv/installed
	.venv/bin/python benchmarks/measure_costs.py

# Every mode on every runtime; takes the real data where KERAS_VIT_DATA has it, and writes docs/matrix.*.
matrix: .venv/installed .venv-device/installed $(LITERT_JS)
	.venv/bin/python benchmarks/matrix.py

.venv-benchmark/installed: pyproject.toml hashes/benchmark.txt
	$(PYTHON) -m venv .venv-benchmark
	.venv-benchmark/bin/python $(PINNED) hashes/benchmark.txt
	.venv-benchmark/bin/python $(PIP) --no-deps --no-build-isolation --editable .
	touch $@

# The pictures of README and docs but those of the benchmark, in light and dark.
pictures: .venv/installed
	.venv/bin/python docs/draw_pictures.py
	.venv/bin/python docs/draw_architecture.py

# Those of the web page; needs chromium and the real data (KERAS_VIT_DATA).
web-pictures: .venv/installed $(LITERT_JS)
	.venv/bin/python docs/draw_web_pictures.py

# PyTorch, litert-torch and ExecuTorch want other versions than the peers beside them. It takes 6 GB: PyTorch's build for
# Linux loads CUDA's libraries, used or not.
.venv-torch/installed: hashes/torch.txt
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python $(PIP) --no-deps --require-hashes --requirement hashes/torch.txt
	touch $@

# After a change of versions in `constraints*.txt`: the hashes of their files, for every platform, which `pip` checks.
hashes:
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python $(PIP) uv==0.13.9
	for name in main device benchmark torch node; do .venv-uv/bin/uv pip compile --quiet --no-header --no-annotate --no-deps \
		--generate-hashes --python-version 3.11 --output-file hashes/$$name.txt \
		constraints$$(test $$name = main || echo -$$name).txt || exit 1; done

clean:
	rm -rf .venv .venv-device .venv-benchmark .venv-torch .venv-node .venv-uv .mutation
	rm -rf demo-output cifar10-output examples/web/site examples/web/node_modules
