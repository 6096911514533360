"""What a Droplet reads from its user-data."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from engine.sandbox.user_data import BootFile, parse_user_data, write_files


def test_yaml_with_every_encoding(tmp_path):
    packed = base64.b64encode(gzip.compress(b"squeezed")).decode()
    text = f"""#cloud-config
packages: [docker.io]
write_files:
- path: /etc/plain
  content: |
    two
    lines
  permissions: '0600'
- {{path: /opt/run.sh, encoding: b64, content: {base64.b64encode(b"#!/bin/sh").decode()}, permissions: "0755"}}
- {{path: /var/z, encoding: gz+b64, content: {packed}}}
- path: /var/binary
  encoding: gzip
  content: !!binary {packed}
- {{path: /etc/plain, content: more, append: true}}
runcmd:
- [reboot]
"""
    write_files(tmp_path, parse_user_data(text))
    assert (tmp_path / "etc/plain").read_text() == "two\nlines\nmore"
    assert (tmp_path / "opt/run.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "var/z").read_bytes() == (tmp_path / "var/binary").read_bytes() == b"squeezed"


def test_json_after_the_header():
    files = parse_user_data("#cloud-config\n" + json.dumps({"write_files": [{"path": "/a", "content": "x"}]}))
    assert files == [BootFile("/a", b"x", 0o644)]


@pytest.mark.parametrize("text", ["", "#!/bin/sh\necho hi\n", "#cloud-config\n", "#cloud-config\nruncmd: [ls]\n"])
def test_nothing_to_write(text):
    assert parse_user_data(text) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("a: [", "not YAML"),
        ("- a", "must be a mapping"),
        ("write_files: 3", "must be a list"),
        ("write_files: [{content: a}]", "needs a path"),
        ("write_files: [{path: /a, encoding: rot13}]", "unknown encoding 'rot13'"),
        ("write_files: [{path: /a, encoding: b64, content: abc}]", "write_files /a"),
        ("write_files: [{path: /a, encoding: gz, content: abc}]", "write_files /a"),
        ("write_files: [{path: /a, permissions: rwx}]", "write_files /a"),
    ],
)
def test_unreadable_is_an_error_that_says_where(body, says):
    with pytest.raises(ValueError, match=says):
        parse_user_data("#cloud-config\n" + body)


@pytest.mark.parametrize("path", ["/../outside", "/", "/a/../../b"])
def test_no_file_leaves_the_root(tmp_path, path):
    with pytest.raises(ValueError, match="not a path below"):
        write_files(tmp_path, [BootFile(path, b"", 0o644)])
