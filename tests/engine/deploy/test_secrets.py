"""The passphrase manager reads what the official engine wrote, and refuses anything else with a sentence."""

from __future__ import annotations

import threading

import pytest

from engine.deploy.secrets import KeyCache, PassphraseSecrets, SecretsError, new_salt, secret_text

# From a recording of the official engine, passphrase "x" (shared/reference/pulumi/file-backend-after-create.json).
SALT = "v1:rr4Q96ls2X8=:v1:QGQLVPKZx265TGxC:nG16W4DT175pACQ9L1clRmL0/JN6tg=="
KEYS = KeyCache()


def test_reads_what_the_official_engine_encrypted() -> None:
    secrets = PassphraseSecrets.open("x", SALT, KEYS)
    assert secrets.decrypt("v1:uaJoNxgAMy9/WxWZ:sttB8xPwuEDc4b8Gv9lQbfoJIBv++w==") == '"hush"'
    assert secrets.decrypt("v1:2JzI5vpChzZdzc14:UDF4515+JSLXvnh4ziuprOcuTbc=") == "hush"


def test_own_salt_opens_again_and_values_round_trip() -> None:
    salt = new_salt("correct horse", KEYS)
    secrets = PassphraseSecrets.open("correct horse", salt, KEYS)
    assert secrets.decrypt(secrets.encrypt("zażółć")) == "zażółć"
    assert secrets.encrypt("a") != secrets.encrypt("a")


def test_wrong_passphrase_says_so() -> None:
    with pytest.raises(SecretsError, match="incorrect passphrase"):
        PassphraseSecrets.open("y", SALT, KEYS)


@pytest.mark.parametrize("state", ["", "v2:a:b", "v1:***:v1:x:y", "v1:YWJj"])
def test_malformed_salt_is_refused(state: str) -> None:
    with pytest.raises(SecretsError, match=r"malformed|incorrect"):
        PassphraseSecrets.open("x", state, KEYS)


def test_damaged_ciphertext_is_refused() -> None:
    secrets = PassphraseSecrets(b"k" * 32, "")
    sealed = secrets.encrypt("text")
    for bad in (sealed[:-6] + "AAAA==", "v1:x", "v3:a:b", sealed.replace("v1:", "v1:!")):
        with pytest.raises(SecretsError):
            secrets.decrypt(bad)


def test_key_is_derived_once_for_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []

    def derive(_name: str, _passphrase: bytes, salt: bytes, _rounds: int, _length: int) -> bytes:
        calls.append(salt)
        return b"k" * 32

    monkeypatch.setattr("engine.deploy.secrets.hashlib.pbkdf2_hmac", derive)
    cache = KeyCache()
    threads = [threading.Thread(target=cache.key, args=("p", b"s")) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert calls == [b"s"]


def test_secret_text_is_gos_json() -> None:
    assert secret_text({"b": [1, None], "a": "<&>"}) == r'{"a":"\u003c\u0026\u003e","b":[1,null]}'
