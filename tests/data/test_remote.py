import http.server
import re
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import publishing
import pytest
import scipy.io

from gmmcli.data import downloaded, remote
from gmmcli.data.downloaded import CIFAR10, CIFAR100, MNIST, SVHN
from gmmcli.data.remote import Published, RemoteFile
from gmmcli.errors import DataError

CONTENT = bytes(range(256)) * 40


def toy(url: str, content: bytes = CONTENT) -> Published:
    return Published("toy", (RemoteFile(url, "some/toy.bin", len(content), sha256(content).hexdigest()),), (1, 8, 8), 8, 4)


@pytest.fixture
def served(tmp_path: Path) -> Published:
    """A set of one file, on a server that is a folder."""
    (tmp_path / "toy.bin").write_bytes(CONTENT)
    return toy((tmp_path / "toy.bin").as_uri())


class Short(http.server.BaseHTTPRequestHandler):
    """Promises more than it sends, at /cut; has nothing else."""

    def do_GET(self) -> None:
        if self.path != "/cut":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100])

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    with http.server.HTTPServer(("127.0.0.1", 0), Short) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def litter(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_one_file_opens_urls() -> None:
    opens = re.compile(r"urllib\.request|urlopen|urlretrieve|http\.client|\brequests\b|\bsocket\b|download_url|load_state_dict_from_url\(")
    package = Path(remote.__file__).parents[1]
    assert [path.name for path in package.rglob("*.py") if opens.search(path.read_text(encoding="utf-8"))] == ["remote.py"]


def test_a_download_is_announced_with_name_size_url_and_destination(
    served: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(served.contents(tmp_path / "data")) == [CONTENT]
    line = f"gmmc: downloading toy: 10,240 bytes from {served.files[0].url} to {tmp_path / 'data' / 'some' / 'toy.bin'}\n"
    assert capsys.readouterr().err.startswith(line)
    assert litter(tmp_path / "data") == ["toy.bin"]


@pytest.mark.parametrize(("value", "forbidden"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_environment_forbids_downloads(
    value: str, forbidden: bool, served: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GMMC_OFFLINE", value)
    if not forbidden:
        assert list(served.contents(tmp_path / "data")) == [CONTENT]
        return
    monkeypatch.setattr(remote, "urlopen", lambda *words, **more: pytest.fail("the network was used"))
    with pytest.raises(DataError, match=r"toy is not in .* and may not be downloaded: --offline or GMMC_OFFLINE forbids it"):
        list(served.contents(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("source", [MNIST, SVHN, CIFAR10, CIFAR100], ids=lambda source: source.kind)
def test_the_error_of_a_set_that_cannot_be_had_has_places_sizes_urls_and_checksums(
    source: type[MNIST], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(remote, "urlopen", refuse)
    with pytest.raises(DataError) as error:
        source(root=str(tmp_path)).load()
    assert error.value.exit_code == 3
    assert f"{source.kind} is not in {tmp_path} and could not be downloaded (no network in tests)" in error.value.message
    for file in source.published.files:
        assert f"{tmp_path / file.place} ({file.size:,} bytes)" in error.value.message
        assert f"{file.url} (sha256 {file.sha256})" in error.value.hint
    assert "data.source.root" in error.value.hint
    assert litter(tmp_path) == []


@pytest.mark.parametrize(("path", "reason"), [("/cut", "/cut sent 100 of 10,240 bytes"), ("/gone", "Not Found")])
def test_what_a_server_cuts_short_or_lacks_is_not_kept(path: str, reason: str, server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"toy is not in .* and could not be downloaded .*{reason}"):
        list(toy(server + path).contents(tmp_path))
    assert litter(tmp_path) == []


@pytest.mark.parametrize(
    ("sent", "reason"), [(CONTENT + b"x", "sends more than 10,240 bytes"), (b"x" * len(CONTENT), "is not what was published: its sha256")]
)
def test_what_a_server_sends_instead_is_not_kept(sent: bytes, reason: str, served: Published, tmp_path: Path) -> None:
    (tmp_path / "toy.bin").write_bytes(sent)
    with pytest.raises(DataError, match=reason):
        list(served.contents(tmp_path / "data"))
    assert litter(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("found", "reason"),
    [(CONTENT[:-1], "it has 10,239 bytes, not 10,240"), (b"x" * len(CONTENT), "its sha256 is [0-9a-f]{64}, not"), (b"", "it has 0 bytes")],
)
def test_a_file_on_disk_is_damaged_not_missing_and_is_neither_used_nor_replaced_unasked(
    found: bytes, reason: str, served: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data" / "some" / "toy.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(found)
    with pytest.raises(DataError, match=rf"toy\.bin is damaged: {reason}") as error:
        list(served.contents(tmp_path / "data"))
    assert error.value.hint == f"`gmmc data download toy --root {tmp_path / 'data'}` fetches it again"
    assert path.read_bytes() == found
    assert served.download(tmp_path / "data") == [*served.files]
    assert path.read_bytes() == CONTENT
    assert served.download(tmp_path / "data") == []


def test_a_folder_in_place_of_a_file_is_a_sentence(served: Published, tmp_path: Path) -> None:
    (tmp_path / "data" / "some" / "toy.bin").mkdir(parents=True)
    with pytest.raises(DataError, match=r"toy\.bin cannot be read \(not a regular file\)"):
        list(served.contents(tmp_path / "data"))


def test_scipy_never_sees_a_file_that_is_not_what_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SVHN comes over http."""
    publishing.svhn(monkeypatch, tmp_path / "server")
    SVHN(root=str(tmp_path / "data")).published.download(tmp_path / "data")
    path = tmp_path / "data" / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(scipy.io, "loadmat", lambda *words, **more: pytest.fail("opened"))
    with pytest.raises(DataError, match=r"train_32x32\.mat is damaged: its sha256"):
        SVHN(root=str(tmp_path / "data")).load()


def test_nothing_is_unpacked_before_it_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for make, source in ((publishing.mnist, MNIST), (publishing.cifar10, CIFAR10)):
        make(monkeypatch, tmp_path / "server")
        files = source.published.files
        source.published.download(tmp_path / "data")
        path = tmp_path / "data" / files[0].place
        path.write_bytes(path.read_bytes()[::-1])
    monkeypatch.setattr(downloaded.gzip, "decompress", lambda *words: pytest.fail("opened"))
    monkeypatch.setattr(downloaded.tarfile, "open", lambda *words, **more: pytest.fail("opened"))
    for kind in (MNIST, CIFAR10):
        with pytest.raises(DataError, match="is damaged"):
            kind(root=str(tmp_path / "data")).load()
