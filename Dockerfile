# Training image on NVIDIA's NeMo container. Build: docker build -t nemo-cmim .
# Other bases: docker build --build-arg NEMO_IMAGE=nvcr.io/nvidia/nemo:TAG -t nemo-cmim .
# Not built in this project's CI, which has no Docker engine and cannot pull the base; tests/test_packaging.py reads it only.
ARG NEMO_IMAGE=nvcr.io/nvidia/nemo:26.06.01
FROM ${NEMO_IMAGE}

WORKDIR /opt/nemo_cmim
COPY setup.py pyproject.toml README.md LICENSE ./
COPY nemo_cmim nemo_cmim
COPY conf conf
COPY examples examples

# The container's torch, Megatron-Core, Transformer Engine and Apex are built for one another. Everything that is there is pinned as
# it is, so pip can only add what is missing (RDKit, and NeMo where the base lacks it) and stops if that were impossible.
# Some bases have a virtual environment made by uv, which holds no pip of its own.
RUN python -m pip --version || uv pip install pip
RUN python -m pip list --format=freeze > /tmp/container.txt \
    && python -m pip install --no-cache-dir --constraint /tmp/container.txt ".[train]" \
    && rm -rf build *.egg-info /tmp/container.txt

RUN useradd --create-home --shell /bin/bash cmim
USER cmim
WORKDIR /home/cmim

# The base's entry point stays: it fits CUDA to the driver of the host.
CMD ["nemo-cmim", "--help"]
