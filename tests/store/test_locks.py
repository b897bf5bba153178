"""A lock for a moment: who does not wait is refused at once, and nothing stays behind."""

import pytest

from nlora.errors import NloraError
from nlora.store.locks import held


@pytest.mark.parametrize("patience", [0.0, 0.05])
def test_only_one_holds_it_and_nothing_is_left(tmp_path, patience):
    place = tmp_path / "new" / "folder"
    with held(place):
        assert [p.name for p in place.parent.iterdir()] == [".folder.lock"]
        with pytest.raises(NloraError) as error, held(place, patience):
            pass
        assert str(error.value) == f"{place} is in use by another process"
    assert not place.parent.exists()
    with held(place):
        pass
