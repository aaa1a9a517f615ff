from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from nemo_cmim.cli import main
from nemo_cmim.errors import ConfigError, DataError
from nemo_cmim.zinc.tranches import select
from nemo_cmim.zinc.url_lists import Source, list_lines, read_url_list, sources_of

BAAA = Source("http://files.docking.org/2D/BA/BAAA.smi", "BA/BAAA.smi")
TRANCHES = select("subset=goldilocks reactivity=standard purchasability=in-stock")


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["a.list", "a.gz"])
@pytest.mark.parametrize("form", ["uri", "wget", "curl", "codes"])
def test_written_lists_can_be_read(form: str, name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, "\n".join(list_lines(TRANCHES, form, "txt")))
    assert read_url_list(path, "txt") == ([Source(t.url("txt"), t.file("txt")) for t in TRANCHES], 0)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("http://files.docking.org/2D/BA/BAAA.smi", BAAA),
        ("  http://files.docking.org/2D/BA/BAAA.smi\r", BAAA),
        ("\ufeffhttp://files.docking.org/2D/BA/BAAA.smi", BAAA),
        ("mkdir -pv BA && wget http://files.docking.org/2D/BA/BAAA.smi -O BA/BAAA.smi", BAAA),
        ("curl http://files.docking.org/2D/BA/BAAA.smi -O BAAA.smi", BAAA),
        ("curl --create-dirs -o ./BA/BAAA.smi http://files.docking.org/2D/BA/BAAA.smi", BAAA),
        ("wget -c http://files.docking.org/2D/BA/BAAA.smi", BAAA),
        ("BAAA", BAAA),
        (
            "https://files.docking.org/3D/BA/AAML/BAAAML.smi",
            Source("https://files.docking.org/3D/BA/AAML/BAAAML.smi", "BA/AAML/BAAAML.smi"),
        ),
        ("https://mirror.org/zinc/BAAA.txt.gz", Source("https://mirror.org/zinc/BAAA.txt.gz", "BA/BAAA.txt.gz")),
        (
            "https://mirror.org/all/molecules.smi?version=2&a=b",
            Source("https://mirror.org/all/molecules.smi?version=2&a=b", "molecules.smi"),
        ),
        ("wget 'https://mirror.org/x?y' -O 'my file.smi'", Source("https://mirror.org/x?y", "my file.smi")),
    ],
)
def test_lines(line: str, expected: Source, tmp_path: Path) -> None:
    assert read_url_list(write(tmp_path / "list", line)).sources == [expected]


def test_order_is_kept_and_repetitions_are_counted(tmp_path: Path) -> None:
    lines = ["# of ZINC", "", "http://x/b.smi", "http://x/a.smi", "curl http://x/b.smi", "http://x/b.smi"]
    assert read_url_list(write(tmp_path / "list", "\n".join(lines))) == (
        [("http://x/b.smi", "b.smi"), ("http://x/a.smi", "a.smi")],
        2,
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ftp://files.docking.org/2D/BA/BAAA.smi", "is not an http or https URL"),
        ("file:///etc/passwd", "is not an http or https URL"),
        ("http:///BAAA.smi", "is not an http or https URL"),
        ("files.docking.org/2D/BA/BAAA.smi", "is not an http or https URL"),
        ("http://x/", "is not a path inside"),
        ("wget http://x/a -O ../a.smi", "'../a.smi' is not a path inside"),
        ("wget http://x/a -O /etc/a.smi", "'/etc/a.smi' is not a path inside"),
        ("http://files.docking.org/2D/../../a.smi", "is not a path inside"),
        ("http://x/downloads.json", "a name that the download itself uses"),
        ("wget http://x/a http://x/b", "neither one URL nor"),
        ("rm -rf http://x/a", "neither one URL nor"),
        ("wget 'http://x/a", "No closing quotation"),
        ("BADA", "is not a tranche code"),
        ("<html>", "is not an http"),
    ],
)
def test_errors_name_the_line(line: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "list.uri", f"http://x/a.smi\n\n{line}\n")
    with pytest.raises(DataError, match=rf"list\.uri, line 3 \(.*{message}"):
        read_url_list(path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"# nothing\n", "contains no URL"), (b"\xff\n", "cannot be read"), (None, "missing")]
)
def test_lists_that_cannot_be_read(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.uri"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_url_list(path)


def test_a_truncated_compressed_list(tmp_path: Path) -> None:
    path = write(tmp_path / "list.gz", "http://x/a.smi\n" * 100)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="cannot be read"):
        read_url_list(path)


def test_lists_and_conditions_together(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "http://x/a.smi\nhttp://x/a.smi\nhttp://files.docking.org/2D/BA/BAAA.smi\n")
    sources, duplicates = sources_of(["mw<=250", str(path), "logp<=-1", "mw>200", "reactivity=A", "purchasability=A"])
    assert sources == [Source("http://x/a.smi", "a.smi"), BAAA]
    assert duplicates == {str(path): 1}
    assert sources_of(["BAAA", str(path), str(path)])[0] == sources  # each URL once


@pytest.mark.parametrize(
    ("word", "error"), [("no.uri", DataError), ("no/list", DataError), ("mw<=", ConfigError), ("nothing", ConfigError)]
)
def test_words_that_are_neither_list_nor_condition(word: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=word):
        sources_of([word])


def test_zincs_own_lists(shared_data: Path) -> None:
    folder = shared_data / "zinc" / "url_lists"
    for name, count in (("ZINC-downloader-2D-smi_969.uri", 969), ("megamolbart_ZINC-downloader.txt.gz", 2795)):
        sources, duplicates = read_url_list(folder / name)
        assert (len(sources), duplicates) == (count, 0)
        assert all(source.url == f"http://files.docking.org/2D/{source.file}" for source in sources)


def test_the_command_writes_zincs_formats(capsys: pytest.CaptureFixture[str]) -> None:
    written = []
    for form in ("uri", "wget", "curl", "codes"):
        assert main(["tranches", "BAAA", "--format", form]) == 0
        written.append(capsys.readouterr().out)
    assert written == [
        "http://files.docking.org/2D/BA/BAAA.smi\n",
        "mkdir -pv BA && wget http://files.docking.org/2D/BA/BAAA.smi -O BA/BAAA.smi\n",
        "curl http://files.docking.org/2D/BA/BAAA.smi -O BAAA.smi\n",
        "BAAA\n",
    ]
