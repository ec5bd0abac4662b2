"""A file or folder that is written anew is the old one or the new one, whole."""

import json
from pathlib import Path

import pytest

from evotext.run_folder.atomic import write_folder, write_json, write_text


def test_a_file_that_cannot_be_written_stays(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_json(file, {"a": 1})
    assert json.loads(file.read_text()) == {"a": 1}
    with pytest.raises(TypeError):
        write_json(file, {"a": {1}})
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert json.loads(file.read_text()) == {"a": 1}


def test_a_folder_takes_the_place_of_the_earlier_one_when_it_is_whole(tmp_path: Path) -> None:
    def write(text: str, fails: bool = False) -> None:
        def into(folder: Path) -> None:
            folder.mkdir()
            (folder / text).touch()
            if fails:
                raise OSError("disk full")

        write_folder(tmp_path / "model", into)

    write("first")
    with pytest.raises(OSError, match="disk full"):
        write("second", fails=True)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["first"]
    write("third")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["third"]
