"""The image sets: where they are published, what their files are called, how many images they have.

`PAPER` are the 15 sets of Table 3. `OTHERS` are sets that the paper does not use. They replace sets of the paper that are not available,
and results name them as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["OTHERS", "PAPER", "SETS", "ImageSet", "RemoteFile"]


@dataclass(frozen=True)
class RemoteFile:
    """A file to download into the folder of its set.

    Attributes:
        url: Official address.
        md5: Checksum that the publisher, or torchvision for it, states.
        name: Name under which it is saved.
        hint: What to do after the download.
    """

    url: str
    md5: str
    name: str
    hint: str = ""


@dataclass(frozen=True)
class ImageSet:
    """An image set.

    Attributes:
        name: Name in tables, and of its folder unless `folder` is given.
        classes: Number of classes.
        documented: Images that its publisher documents: train, validation (0: has none), test.
        paper: Train and test images, and classes, that Table 3 of the paper states; None: not one of the paper's sets.
        files: Official files.
        images: For each part ("train", "valid", "test", or "all" without a split) the names of files or arrays that may hold it: the
            first that exists is used. A file of `idx` type is a pair with "images"/"labels" in place of "*" and 3/1 in place of "#".
        labels: The array of labels for each part, for npz files; empty: "images" replaced by "labels".
        first_label: Label of the first class in the files.
        folder: Folder, if it is not `name`.
        archive: The npz file that may hold the arrays; "": idx files.
        is_transposed: Whether the files have rows and columns exchanged (EMNIST).
        note: Property of the set that a reader of a table must know.
        file_notes: The same for some of the names in `images`, if that file is used.
    """

    name: str
    classes: int
    documented: tuple[int, int, int]
    paper: tuple[int, int, int] | None = None
    files: tuple[RemoteFile, ...] = ()
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    first_label: int = 0
    folder: str = ""
    archive: str = ""
    is_transposed: bool = False
    note: str = ""
    file_notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Name of the folder of the files."""
        return self.folder or self.name


_IDX = {"train": ("train-*-idx#-ubyte",), "test": ("t10k-*-idx#-ubyte",)}
_MED_URL = "https://zenodo.org/record/6496656/files/{}.npz?download=1"
_MED = {"train": ("train_images",), "valid": ("val_images",), "test": ("test_images",)}
_EMNIST = RemoteFile(
    "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
    "58c8d27c78d21e728a6bc7b3cc06412e",
    "gzip.zip",
    "unpack it in its folder",
)


def _idx_files(url: str, checksums: tuple[str, str, str, str]) -> tuple[RemoteFile, ...]:
    names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
    return tuple(RemoteFile(url + name, md5, name) for name, md5 in zip(names, checksums))


def _emnist(name: str, part: str, classes: int, documented: tuple[int, int, int], paper: tuple[int, int, int]) -> ImageSet:
    images = {
        split: (f"gzip/emnist-{part}-{split}-*-idx#-ubyte", f"emnist-{part}-{split}-*-idx#-ubyte") for split in ("train", "test")
    }
    first_label = 1 if part == "letters" else 0
    return ImageSet(
        name, classes, documented, paper, (_EMNIST,), images, first_label=first_label, folder="emnist", is_transposed=True
    )


def _med(
    name: str, md5: str, classes: int, documented: tuple[int, int, int], paper: tuple[int, int, int], note: str = ""
) -> ImageSet:
    file = RemoteFile(_MED_URL.format(name), md5, f"{name}.npz")
    return ImageSet(name, classes, documented, paper, (file,), _MED, archive=f"{name}.npz", note=note)


PAPER: tuple[ImageSet, ...] = (
    ImageSet(
        "mnist",
        10,
        (60000, 0, 10000),
        (60000, 10000, 10),
        _idx_files(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
        ),
        _IDX,
    ),
    ImageSet(
        "fashion-mnist",
        10,
        (60000, 0, 10000),
        (60000, 10000, 10),
        _idx_files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
        ),
        {"train": (*_IDX["train"], "train20k-*-idx#-ubyte"), "test": _IDX["test"]},
        file_notes={"train20k-*-idx#-ubyte": "the first 20,000 training images only"},
    ),
    _emnist("emnist-letters", "letters", 26, (124800, 0, 20800), (88800, 14800, 27)),
    _emnist("emnist-digits", "digits", 10, (240000, 0, 40000), (240000, 40000, 10)),
    _med("pathmnist", "a8b06965200029087d5bd730944a56c1", 9, (89996, 10004, 7180), (89996, 7180, 9)),
    _med("dermamnist", "0744692d530f8e62ec473284d019b0c7", 7, (7007, 1003, 2005), (7007, 2003, 7)),
    _med("octmnist", "c68d92d5b585d8d81f7112f81e2d0842", 4, (97477, 10832, 1000), (97477, 8646, 4)),
    _med(
        "pneumoniamnist",
        "28209eda62fecd6e6a2d98b1501bb15f",
        2,
        (4708, 524, 624),
        (9728, 2433, 2),
        "8 images are in both train and validation",
    ),
    _med("retinamnist", "bd4c0672f1bba3e3a89f0e4e876791e4", 5, (1080, 120, 400), (1600, 400, 5)),
    _med(
        "breastmnist", "750601b1f35ba3300ea97c75c52ff8f6", 2, (546, 78, 156), (7000, 2000, 2), "1 image is in both train and test"
    ),
    _med("bloodmnist", "7053d0359d879ad8a5505303e11de1dc", 8, (11959, 1712, 3421), (11959, 3432, 8)),
    _med("tissuemnist", "ebe78ee8b05294063de985d821c1c34b", 8, (165466, 23640, 47280), (165466, 47711, 8)),
    _med("organamnist", "866b832ed4eeba67bfb9edee1d5544e6", 11, (34581, 6491, 17778), (34581, 8336, 11)),
    _med("organcmnist", "0afa5834fb105f7705a7d93372119a21", 11, (13000, 2392, 8268), (13000, 3239, 11)),
    _med("organsmnist", "e5c39f1af030238290b9557d9503af9d", 11, (13940, 2452, 8829), (23000, 5749, 11)),
)
"""Table 3. Counts and checksums of MedMNIST are those of version 2 (Zenodo record 6496656, `medmnist/info.py` 2.1.0); the OrganMNIST sets
of version 3 have fewer images. Counts of EMNIST are those of its files.

Where Table 3 of the paper differs from these counts (train, test):

* EMNIST Letters: 88,800 and 14,800, which an earlier description of EMNIST has (103,600 letters). Its 27 classes count the label 0, which
  no image has.
* RetinaMNIST: 1,600 train, which is all images of its three parts.
* OCTMNIST: 8,646 test, documented 1,000. OrganAMNIST: 8,336, documented 17,778. OrganCMNIST: 3,239, documented 8,268.
* DermaMNIST, BloodMNIST and TissueMNIST: 2,003, 3,432 and 47,711 test, documented 2,005, 3,421 and 47,280.
* PneumoniaMNIST: 9,728 and 2,433, documented 4,708 and 624. BreastMNIST: 7,000 and 2,000, documented 546 and 156. OrganSMNIST: 23,000 and
  5,749, documented 13,940 and 8,829.

We found no explanation for the differences of MedMNIST, except that of RetinaMNIST. Here the official parts are used.
"""

_ALL = {"all": ("images",)}
OTHERS: tuple[ImageSet, ...] = (
    ImageSet(
        "emnist-letters-a-m",
        13,
        (0, 0, 10000),
        folder="emnist-letters",
        archive="emnist_letters_test_first10k.npz",
        images={"all": ("test_images",)},
        note="13 of 26 letters: the first 10,000 test images of EMNIST letters",
    ),
    ImageSet(
        "usps", 10, (7291, 0, 2007), folder="usps16", archive="usps.npz", images={k: (f"{k}_images",) for k in ("train", "test")}
    ),
    ImageSet(
        "kmnist",
        10,
        (0, 0, 10000),
        archive="kmnist_test.npz",
        images={"all": ("test_images",)},
        note="the official test images only",
    ),
    ImageSet(
        "kannada-mnist",
        10,
        (0, 0, 10000),
        archive="kannada_mnist_test.npz",
        images={"all": ("test_images",)},
        note="the official test images only",
    ),
    ImageSet("dig-mnist", 10, (0, 0, 10240), archive="dig_mnist.npz", images=_ALL),
    ImageSet(
        "animal-shape",
        10,
        (0, 0, 10000),
        images={"all": ("all10k-*-idx#-ubyte",)},
        note="silhouettes of animals",
    ),
    ImageSet(
        "quickdraw3", 3, (0, 0, 3000), archive="quickdraw_cat_train_rainbow.npz", images=_ALL, note="3 classes of Quick, Draw!"
    ),
    ImageSet(
        "omniglot-alphabets",
        8,
        (0, 0, 4840),
        folder="omniglot28",
        archive="omniglot_small12_28.npz",
        images=_ALL,
        labels={"all": "alphabet_labels"},
        note="the class is the alphabet",
    ),
)
"""Stand-ins. `documented` has the images of the files; a set with a single part is split here (see `data.load`)."""

SETS: dict[str, ImageSet] = {one.name: one for one in (*PAPER, *OTHERS)}
"""All sets by name."""
