# Training image based on NVIDIA's NeMo container. Build: docker build -t nemo-cmim .
# With a different base: docker build --build-arg NEMO_IMAGE=nvcr.io/nvidia/nemo:TAG -t nemo-cmim .
# Not built in CI, which has no Docker engine and cannot pull the base image; tests/test_packaging.py only reads this file.
ARG NEMO_IMAGE=nvcr.io/nvidia/nemo:26.06.01
FROM ${NEMO_IMAGE}

WORKDIR /opt/nemo_cmim
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY nemo_cmim nemo_cmim
COPY conf conf
COPY examples examples
COPY tools/add_missing.py tools/add_missing.py

# torch, Megatron-Core, Transformer Engine and Apex of the base image match each other: what it has stays as it is, and only missing
# packages are added. Lightning may be replaced: NeMo 3.0 cannot be imported with 2.6. The import shows that all fits together.
# Some base images have a virtual environment made by uv, without pip.
RUN python -m pip --version || uv pip install pip
RUN python tools/add_missing.py --replace lightning pytorch-lightning \
    && python -c "import nemo_cmim.training.run" \
    && rm -rf build *.egg-info

RUN useradd --create-home --shell /bin/bash cmim
USER cmim
WORKDIR /home/cmim

# The base image's entry point is kept: it adapts CUDA to the host's driver.
CMD ["nemo-cmim", "--help"]
