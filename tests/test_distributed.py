"""Several processes: who they are, and what they know together."""

import os
import time

import pytest
import torch

from gmmcli.distributed import (
    World,
    _take_gpu,
    any_of,
    average,
    barrier,
    by_main,
    divided,
    from_main,
    gather,
    joined,
    main_first,
    mean,
    minimum,
    most,
    once,
    take_from_main,
    world,
)
from gmmcli.errors import GmmcError
from ranks import on_ranks


def test_one_process_is_the_main_one_and_everything_is_its_own():
    values = torch.arange(3.0)
    with joined() as alone:
        assert alone == world() == World(0, 1, 0)
        assert alone.is_main
        assert alone.share(5) == slice(0, 5)
        assert mean(values) is values
        assert minimum(values) is values
        assert gather(values) is values
        assert most(3) == 3
        assert any_of(True)
        assert not any_of(False)
        assert from_main("a") == "a"
        assert torch.equal(divided(3, lambda mine: (values[mine],))[0], values)
        assert divided(0, lambda mine: (values[mine],))[0].tolist() == []
        assert once(lambda: [1]) == [1]
        barrier()


@pytest.mark.parametrize(("n", "size"), [(10, 3), (2, 3), (0, 2), (9, 3)])
def test_shares_are_all_of_it_in_order_and_nearly_equal(n, size):
    parts = [list(range(n))[World(rank, size).share(n)] for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def _collectives():
    here = world()
    mine = torch.tensor([float(here.rank), 1.0])
    rows = torch.arange(6, dtype=torch.uint8).reshape(3, 2)[: here.rank]  # none of rank 0, one of rank 1, two of rank 2
    gathered = gather(rows)
    named = from_main("von Rang 0: ä" if here.is_main else "ignored and longer than that")
    return tuple(here), mean(mine).tolist(), minimum(mine).tolist(), any_of(here.rank == 1), any_of(False), gathered.tolist(), named


def test_three_processes_agree():
    for rank, (here, averaged, least, one, none, rows, named) in enumerate(on_ranks(3, _collectives)):
        assert here == (rank, 3, rank)
        assert averaged == [1.0, 1.0]
        assert least == [0.0, 1.0]
        assert one
        assert not none
        assert rows == [[0, 1], [0, 1], [2, 3]]
        assert named == "von Rang 0: ä"


def _squares(n):
    done = []

    def work(mine):
        done.extend(range(n)[mine])
        numbers = torch.arange(n)[mine]
        return numbers**2, numbers[:, None].double()

    squares, numbers = divided(n, work)
    return squares.tolist(), numbers.tolist(), str(numbers.dtype), done


@pytest.mark.parametrize(("n", "done"), [(5, [[0], [1, 2], [3, 4]]), (2, [[0], [0], [1]])])
def test_divided_work_is_whole_everywhere_and_done_once_but_for_those_with_nothing_to_do(n, done):
    found = on_ranks(3, _squares, n)
    assert [mine for *_, mine in found] == done
    assert [whole for *whole, _ in found] == [[[i * i for i in range(n)], [[i] for i in range(n)], "torch.float64"]] * 3
    assert _squares(n)[:3] == tuple(found[0][:3])


def _writes(path):
    written = once(lambda: [path.write_text(f"by {world().rank}"), time.sleep(0.2)] and [path])
    return written, path.read_text()


def test_what_is_written_once_is_there_for_all_when_they_go_on(tmp_path):
    path = tmp_path / "file"
    assert on_ranks(3, _writes, path) == [([path], "by 0"), ([], "by 0"), ([], "by 0")]


def _in_place():
    rank = world().rank
    square, row = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T * 3**rank, torch.full((3,), float(rank))  # one of them transposed in memory
    average([square, row])
    average([])
    own = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T + rank
    take_from_main([own, count := torch.tensor(rank)])
    return square.tolist(), row.tolist(), own.tolist(), int(count)


def test_tensors_become_the_mean_or_those_of_the_main_process_in_place():
    for square, row, own, count in on_ranks(2, _in_place):
        assert square == [[2.0, 6.0], [4.0, 8.0]]
        assert row == [0.5] * 3
        assert own == [[1.0, 3.0], [2.0, 4.0]]
        assert count == 0


def _one_disagrees():
    return minimum(torch.tensor(world().rank == 0)).tolist(), minimum(torch.tensor(True)).tolist()


def test_a_flag_is_set_where_it_is_set_in_every_process():
    assert on_ranks(2, _one_disagrees) == [(False, True)] * 2


def _noting(notes):
    by_main(notes.append)(world().rank)
    return notes, world().key


def test_what_the_main_process_does_the_others_leave():
    assert on_ranks(2, _noting, []) == [([0], ("rank", 0)), ([], ("rank", 1))]
    assert World().key == ()


def _finds(path):
    def find():
        there = path.exists()
        time.sleep(0.1)
        path.touch()
        return there

    return main_first(find)


def test_what_the_main_process_has_written_the_others_find(tmp_path):
    assert on_ranks(3, _finds, tmp_path / "file") == [False, True, True]


def test_more_processes_than_gpus_are_one_sentence():
    with pytest.raises(GmmcError, match=r"^process 2 of this machine has no GPU: there are 2$"):
        _take_gpu(2, 2)


def _one_dies():
    if world().rank == 1:
        os._exit(0)
    barrier()


def _one_hangs():
    if world().rank == 1:
        time.sleep(60)
    else:
        barrier()


@pytest.mark.parametrize("function", [_one_dies, _one_hangs])
def test_a_process_that_dies_or_hangs_ends_the_others_in_one_sentence(function):
    with pytest.raises(GmmcError, match=r"^another process ended or did not answer for 1 s$"):
        on_ranks(2, function, timeout=1.0)


def _breaks():
    raise RuntimeError("a bug")


def test_a_bug_is_no_trouble_of_another_process():
    with pytest.raises(RuntimeError, match="a bug"):
        on_ranks(2, _breaks)
