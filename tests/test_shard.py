"""Which share of the work is whose."""

import pytest

from kit.shard import Shard, ShardError


def test_the_shard_is_what_torchrun_says(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert Shard.from_environment() == Shard(0, 1, 0)
    monkeypatch.setenv("RANK", "5")
    with pytest.raises(ShardError, match="RANK=5"):
        Shard.from_environment()
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Shard.from_environment() == Shard(rank=5, world=8, local=1)
    monkeypatch.setenv("RANK", "five")
    with pytest.raises(ShardError, match="RANK=five"):
        Shard.from_environment()


@pytest.mark.parametrize("numbers", [(2, 2), (-1, 2), (0, 0), (0, 1, -1)])
def test_numbers_that_do_not_fit_are_refused(numbers):
    with pytest.raises(ShardError):
        Shard(*numbers)


def test_one_process_agrees_with_itself_and_is_told_its_own_refusal():
    with Shard().together():
        assert Shard().agreed(lambda: 7) == 7
        with pytest.raises(KeyError):
            Shard().agreed(lambda: {}["nothing"])
