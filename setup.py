"""All metadata of the package. Lower bounds say what the code needs; `constraints.txt` is the one set that is tested."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

BASE = [
    "torch>=2.6",
    "numpy>=1.26",
    "pandas>=2.2",
    "rdkit>=2026.3.1",  # the first with CaptureErrorLog
    "scikit-learn>=1.6",  # the first with __sklearn_tags__
    "scipy>=1.11",
    "joblib>=1.4",
    "skops>=0.14",  # files of property models; older ones have known gaps in their checks of types
    "safetensors>=0.4.3",
    "pyyaml>=6.0",
    "tqdm>=4.66",
    "pyarrow>=15.0",
    "matplotlib>=3.8",
    "jinja2>=3.1",
]
# NVIDIA Apex is no dependency: the PyPI project called "apex" is another one. Apex comes with NVIDIA's containers, and
# Megatron-Core picks it up where it is present.
TRAIN = [
    "nemo_toolkit[core]>=3.0",
    "megatron-core>=0.16",
    "lightning>=2.4",
    "hydra-core>=1.3.2",
    "omegaconf>=2.3",
    "einops>=0.8",  # imported by NeMo 3.0, which does not ask for it
    "sentencepiece>=0.2",  # likewise
]
DATA = [
    "dask>=2024.8",
    "distributed>=2024.8",
    "fsspec>=2024.3",
    "requests>=2.31",
    "tenacity>=8.2",
]
LAUNCH = [
    "nemo_run>=0.4,<0.5",  # later ones bring Lepton's client, and Ray with it; with its newest release they cannot be imported
]
OPTIMIZE = [
    "cma>=3.3",
]
ONNX = [
    "onnxruntime>=1.22",  # runs the graphs
    "onnx>=1.17",  # writes them
]
SEARCH = [
    "usearch>=2.16",
]
HUB = [
    "huggingface_hub>=0.30",
]
SERVE = [
    *OPTIMIZE,  # /generate
    "fastapi>=0.115",
    "uvicorn>=0.34",
    "prometheus_client>=0.20",
    "pydantic>=2.10",
]
DEV = [
    *SERVE,
    *ONNX,
    *SEARCH,
    *HUB,
    "httpx>=0.27",
    "psutil>=5.9",
    "schemathesis>=4.0",
    "pytest>=8.0",
    "pytest-randomly>=3.15",
    "hypothesis>=6.100",
    "ruff>=0.17",
    "mypy>=2.0",
    "polars>=1.0",  # one of the kinds of input that the tests try
]

setup(
    name="nemo_cmim",
    version=runpy.run_path(str(ROOT / "nemo_cmim" / "version.py"))["__version__"],
    description="Contrastive Mutual Information Machine for molecules: trains with NeMo and Megatron-Core, embeds with PyTorch",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    install_requires=BASE,
    extras_require={
        "data": DATA,
        "train": [*TRAIN, *DATA],
        "launch": LAUNCH,
        "optimize": OPTIMIZE,
        "onnx": ONNX,
        "search": SEARCH,
        "hub": HUB,
        "serve": SERVE,
        "dev": DEV,
    },
    # conf/ stands at the top of the checkout and is installed as nemo_cmim.conf.
    packages=[*find_packages(include=["nemo_cmim", "nemo_cmim.*"]), "nemo_cmim.conf"],
    package_dir={"nemo_cmim.conf": "conf"},
    package_data={
        "nemo_cmim": ["py.typed", "shipped/*"],
        "nemo_cmim.conf": ["**/*.yaml"],
        "nemo_cmim.inference.engines": ["*.smi"],
        "nemo_cmim.report": ["*.html"],
        "nemo_cmim.serve": ["*.html"],
        "nemo_cmim.tokenizers": ["*.txt"],
    },
    include_package_data=False,
    zip_safe=False,
    entry_points={
        "console_scripts": ["nemo-cmim = nemo_cmim.cli:main"],
        "molfeat.calc": ["CMIMCalculator = nemo_cmim.molfeat_plugin:CMIMCalculator"],
        "nemo_run.cli": ["cmim = nemo_cmim.recipes"],  # `nemorun cmim pretrain`
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Chemistry",
    ],
)
