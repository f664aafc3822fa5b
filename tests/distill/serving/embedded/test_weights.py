from pathlib import Path

import pytest

from divcon.distill import Base
from divcon.distill.serving.embedded import GGUFError, convert_gguf


def test_what_is_no_gguf_file_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match="There is no file"):
        convert_gguf(tmp_path / "none.gguf", tmp_path / "out")
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(GGUFError, match="is no GGUF file"):
        convert_gguf(tmp_path / "text.gguf", tmp_path / "out")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF")
    with pytest.raises(GGUFError, match="can't read"):
        convert_gguf(tmp_path / "cut.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    with pytest.raises(GGUFError, match="is there already"):
        convert_gguf(tmp_path / "cut.gguf", tmp_path / "there")
    assert (tmp_path / "there" / "file").read_text() == "mine"


@pytest.mark.model
def test_the_embedded_base_comes_out_of_its_gguf_file_as_a_folder_that_loads(base: Base) -> None:
    from transformers import AutoTokenizer

    assert (base.path / "model.safetensors").is_file()
    assert AutoTokenizer.from_pretrained(base.path).chat_template
