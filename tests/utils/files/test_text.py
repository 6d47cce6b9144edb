"""Files of text: what is read of them, and YAML entry by entry as YAML in one piece."""

from __future__ import annotations

import pytest
import yaml

from utils.files.text import parse_yaml, read_bytes

TEXTS = {
    "sections": "a:\n  b: 1\n  c: [1, 2]\n  d:\n  - x\n  e:\n    f: 1\n  g:\nh: yes\n",
    "the same entry in two sections": "a:\n  b: 1\nc:\n  b: 1\n",
    "line ends kept": "a:\n  b: |+\n    x\n\n  c: |+\n    y\n\nd: |+\n  z\n\n",
    "line ends of the last": "a:\n  b: |\n    x",
    "a text on two lines": 'a:\n  b: "x\n  c: 1"\n  d: 1\n',
    "a text that goes on": "a:\n  b: x\n    c\n  d: 1\n",
    "a list on two lines": "a:\n  b: [1,\n  c]\n",
    "a name twice": "a:\n  b: 1\n  b: 2\n",
    "a section twice": "a:\n  b: 1\na:\n  c: 1\n",
    "a heading that is no text": "yes:\n  b: 1\n",
    "a name that is no text": "a:\n  yes: 1\n",
    "a number as name": "a:\n  b: 1\n  2: 1\n",
    "a comment": "a:\n  b: 1 # it's\n  # c: 1\n  d: 1\n",
    "a text and a section": "a: x\n  b: 1\n",
    "deeper, then less deep": "a:\n   b: 1\n  c: 1\n",
    "less deep": "a:\n  b: 1\n c: 1\n",
    "an end between sections": "a: 1\n...\nb: 1\n",
    "an end between entries": "a:\n  b: 1\n...\n  c: 1\n",
    "a document more": "a:\n  b: 1\n---\n  c: 1\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_entry_by_entry_as_in_one_piece(text):
    try:
        whole = yaml.safe_load(text)
    except yaml.YAMLError:
        with pytest.raises(ValueError):
            parse_yaml(text)
    else:
        found = parse_yaml(text)
        assert found == whole and [*found] == [*whole]


def test_a_file_that_is_too_long_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == read_bytes(tmp_path / "a") == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_bytes(tmp_path / "a", 4)
