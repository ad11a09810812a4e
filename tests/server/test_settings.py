"""Settings come from flags, the environment and a file, in this order, and what cannot be meant is refused."""

from pathlib import Path

import pytest

from trimode.errors import InvalidInput
from trimode.server.settings import NAMES, PREFIX, Settings, gather


def written(folder: Path, text: str) -> Path:
    (folder / "server.toml").write_text(text, "utf-8")
    return folder / "server.toml"


def test_a_flag_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "port = 1\nmax_running_requests = 2\nmax_answers = 3\n[decoding]\nblock_length = 8\n")
    environment = {"TRIMODE_PORT": "4", "TRIMODE_MAX_RUNNING_REQUESTS": "5", "TRIMODE_LENIENT": "yes", "HOME": "/"}
    found = gather({"port": 6, "decoding": {"draft_length": 4}}, environment, file)
    assert (found.port, found.max_running_requests, found.max_answers, found.lenient) == (6, 5, 3, True)
    assert found.decoding == {"block_size": 8, "draft_length": 4}
    assert gather({}, {}, None) == Settings()


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_may_stand_in_the_environment(name: str) -> None:
    value = getattr(Settings(), name)
    text = {"host": "localhost", "api_key": "k", "backend": "torch"}.get(name, "7" if value is None else str(value))
    if name == "api_key_file":
        with pytest.raises(InvalidInput, match="cannot be read"):
            gather({}, {PREFIX + "API_KEY_FILE": "/nowhere/keys"}, None)
        return
    gather({}, {PREFIX + name.upper(): text}, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("port = 70000", "port is 70000, allowed is 0 to 65535"), ("port = true", "port is True, allowed is a int"),
        ("prot = 1", "prot is no setting"), ("port = ", "not readable as TOML"),
        ("[decoding]\nblocks = 1", "blocks is no"),
        ("host = '0.0.0.0'", "--api-key"), ("lenient = 1", "lenient is 1"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        gather({}, {}, written(tmp_path, text))


@pytest.mark.parametrize("environment", [{"TRIMODE_PORT": "many"}, {"TRIMODE_LENIENT": "perhaps"}])
def test_an_environment_that_cannot_be_meant_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(environment))):
        gather({}, environment, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_an_address_that_others_reach_wants_a_key_or_a_word(host: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--public-without-key"):
        Settings(host=host)
    assert not Settings(host=host, public_without_key=True).is_local
    (tmp_path / "keys").write_text("one\n\n two \none\n", "utf-8")
    assert Settings(host=host, api_key="three", api_key_file=str(tmp_path / "keys")).keys == ("three", "one", "two")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_wants_neither(host: str) -> None:
    assert Settings(host=host).is_local


def test_a_key_that_is_empty_lets_nobody_in_by_mistake() -> None:
    with pytest.raises(InvalidInput, match="no key"):
        Settings(api_key=" , ")
