# `make demo` and `make test` need Python 3.11 and make, nothing else; both set up what they use.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP = -m pip --disable-pip-version-check install --quiet
# As many processes as cores, but each test process holds a TensorFlow of its own.
WORKERS ?= 2

.PHONY: demo test test-long lint benchmark clean

demo: .venv/installed
	.venv/bin/keras-vit demo

test: .venv/installed .venv-device/installed
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile tests

# The same promises on more modes and weights.
test-long: .venv/installed
	.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile -m long tests

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) --constraint constraints.txt --editable '.[checkpoints,demo,plots,test]'
	touch $@

# tflite-runtime 2.14 needs NumPy 1, so it has an environment of its own.
.venv-device/installed: constraints-device.txt
	$(PYTHON) -m venv .venv-device
	.venv-device/bin/python $(PIP) --requirement constraints-device.txt
	touch $@

# The peers and this package, side by side; needs the real data (KERAS_VIT_DATA) and writes docs/benchmark.*.
benchmark: .venv-benchmark/installed
	.venv-benchmark/bin/python benchmarks/compare.py

.venv-benchmark/installed: pyproject.toml constraints-benchmark.txt
	$(PYTHON) -m venv .venv-benchmark
	.venv-benchmark/bin/python $(PIP) --constraint constraints-benchmark.txt --editable '.[benchmark]'
	touch $@

clean:
	rm -rf .venv .venv-device .venv-benchmark demo-output cifar10-output
