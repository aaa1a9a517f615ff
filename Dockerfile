# Training image based on NVIDIA's NeMo container. Build: docker build -t nemo-cmim .
# With a different base: docker build --build-arg NEMO_IMAGE=nvcr.io/nvidia/nemo:TAG -t nemo-cmim .
# Not built in CI, which has no Docker engine and cannot pull the base image; tests/test_packaging.py only reads this file.
ARG NEMO_IMAGE=nvcr.io/nvidia/nemo:26.06.01
FROM ${NEMO_IMAGE}

WORKDIR /opt/nemo_cmim
COPY setup.py pyproject.toml README.md LICENSE ./
COPY nemo_cmim nemo_cmim
COPY conf conf
COPY examples examples

# torch, Megatron-Core, Transformer Engine and Apex in the base image match each other. All installed versions are pinned, so that pip can
# only add missing packages (RDKit, and NeMo if the base image lacks it), and fails if that is impossible.
# Some base images have a virtual environment made by uv, without pip.
RUN python -m pip --version || uv pip install pip
RUN python -m pip list --format=freeze > /tmp/container.txt \
    && python -m pip install --no-cache-dir --constraint /tmp/container.txt ".[train]" \
    && rm -rf build *.egg-info /tmp/container.txt

RUN useradd --create-home --shell /bin/bash cmim
USER cmim
WORKDIR /home/cmim

# The base image's entry point is kept: it adapts CUDA to the host's driver.
CMD ["nemo-cmim", "--help"]
